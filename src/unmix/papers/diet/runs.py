"""The pieces of work: a learner trained with a given compute and probed, what is not trained, and known latents."""

from __future__ import annotations

import base64
import functools
import json
import time
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from unmix.core.errors import UnmixError
from unmix.core.seeds import Stream
from unmix.core.watch import Watch
from unmix.learners import LEARNERS
from unmix.learners.augment import Augment
from unmix.learners.losses import smoothing_floor
from unmix.learners.representation import evaluating
from unmix.scores.representation import alignment, effective_rank, lidar, uniformity
from unmix.study.learning import Learning, measure
from unmix.study.probing import Parts, labelled, linear_probe, nearest, neighbours_probe, split
from unmix.worlds import WORLDS
from unmix.worlds.images import Images

VIEWED, VIEWS = 256, 4  # held-out pictures, and views of each, that LiDAR and alignment are measured on
NEIGHBOURS = 8
LOOKED = (0.1, 1.0, 10.0)  # strengths of the probes on the way, chosen as those at the end
LOOKED_AT = 4000  # rows, at most, that they are fitted on, and chosen on
LAST = 0.05  # share of the steps whose mean loss is told


class Rows:
    """Training, validation and held-out pictures of a world with their labels."""

    def __init__(self, world: Images) -> None:
        (x, self.y), (held, self.held_y) = labelled(world)
        self.x, self.held = torch.as_tensor(x), torch.as_tensor(held)
        self.fitted, self.aside = split(self.y, self.x)

    def parts(self, source: Any) -> Parts:
        """What probes are fitted on, chosen on, and tested on once."""
        h = source(self.x).numpy()
        fitted, chosen = ((h[places], self.y[places]) for places in (self.fitted, self.aside))
        return Parts(fitted, chosen, (source(self.held).numpy(), self.held_y))

    def on_the_way(self, source: Any) -> float:
        """Accuracy of a linear probe on validation rows, with a few thousand rows at most; none is held out."""
        places = [here[:: -(-len(here) // LOOKED_AT)] for here in (self.fitted, self.aside)]
        fitted, chosen = ((source(self.x[here]).numpy(), self.y[here]) for here in places)
        return linear_probe(Parts(fitted, chosen, chosen), LOOKED).validation


@functools.lru_cache(maxsize=1)
def _rows(world: str) -> Rows:
    return Rows(WORLDS.make(json.loads(world)))


class Looks(Watch):
    """Probes the encoder on validation rows a few times on the way, with the mean excess loss since the last time."""

    def __init__(self, rows: Rows, steps: int, count: int) -> None:
        self.rows, self.modules = rows, None
        self.at = {max(1, round(steps * 2.0**-power)) for power in range(count)}
        self.losses: list[float] = []
        self.seen: list[dict[str, float]] = []

    def before_step(self, step: int, module: Any, optimiser: Any) -> None:
        self.modules = module

    def on_step(self, step: int, total: int, facts: Mapping[str, Any]) -> None:
        self.losses.append(float(facts["excess"]))
        if step in self.at:
            late = self.losses[-max(1, len(self.losses) // 4) :]
            accuracy = self.rows.on_the_way(self._encoded)
            self.seen.append({"step": step, "excess": float(np.mean(late)), "accuracy": accuracy})

    def _encoded(self, x: Tensor) -> Tensor:
        encoder = self.modules["encoder"]  # type: ignore[index]
        with torch.no_grad(), evaluating(encoder):
            return torch.cat([encoder(part) for part in x.split(1024)])


def trained(
    world: Mapping[str, Any],
    learner: Mapping[str, Any],
    seed: int,
    compute: float,
    looks: int = 0,
    pictures: int = 0,
    most: int | None = None,
) -> dict[str, Any]:
    """A learner trained on images with `compute` floating-point operations and one seed, and probed.

    world: of all rows. most: pictures to learn from, of every class alike; probes see all training rows always.
    The number of steps is compute over the operations of one step, which are counted. The result has steps, how
    often each picture was seen, flops of a step, seconds, probes (as `probed`), of a learner with an excess loss that
    (mean of the last steps), the plain cross-entropy on unchanged training pictures over ln N, looks on the way, and
    pictures: queries with their nearest neighbours. A fit that fails gives `error`.
    """
    text = json.dumps(dict(world), sort_keys=True)
    rows, known = _rows(text), WORLDS.make({**world, **({} if most is None else {"most": most})})
    made = LEARNERS.make(dict(learner))
    flops = made.flops(known)
    made = made.but(steps=max(1, round(compute / flops)))
    watch = Looks(rows, made.steps, looks) if looks else Watch()
    begun = time.perf_counter()
    try:
        learnt = made.fit(known, seed, watch)
    except UnmixError as error:
        return {"error": str(error), "seconds": round(time.perf_counter() - begun, 1)}
    spent = {"steps": made.steps, "seen": made.steps * min(made.batch, known.size) / known.size, "flops": flops}
    spent["seconds"] = round(time.perf_counter() - begun, 1)
    found = {**spent, **probed(rows, learnt, made._view, seed)}
    last = learnt.trace[-max(1, round(LAST * len(learnt.trace))) :]
    if "excess" in last[-1]:
        found["excess"] = float(np.mean([line["excess"] for line in last]))
        found["plain"] = _plain_loss(known, learnt)
        found["floor"] = smoothing_floor(known.size, made.smoothing)
    if isinstance(watch, Looks):
        found["looks"] = watch.seen
    if pictures:
        found["pictures"] = _pictures(rows, learnt, pictures, seed)
    return found


def baseline(
    world: Mapping[str, Any], learner: Mapping[str, Any] | None, seed: int, pictures: int = 0
) -> dict[str, Any]:
    """Probes of the network that a learner starts from, or, without a learner, of raw pixels; as in `trained`."""
    rows, known = _rows(json.dumps(dict(world), sort_keys=True)), WORLDS.make(dict(world))
    if learner is None:
        found = probed(rows, _flat, None, seed)
        return {**found, "pictures": _pictures(rows, _flat, pictures, seed)} if pictures else found
    made = LEARNERS.make(dict(learner))
    return probed(rows, made.untrained(known, seed), made._view, seed)


def known_latents(
    world: Mapping[str, Any], learner: Mapping[str, Any], seed: int, test: int = 4096
) -> dict[str, Any]:
    """DIET on a world whose latents are known: what `unmix learn` tells, and the class probe beside the best one.

    The result has scores (r2 with minimum and baselines, weights_r2, within_class, ...), seconds, loss; probe and
    knn (accuracy of probes of the class on fresh rows) and bayes, the accuracy of the world's own posterior.
    """
    job = Learning(world=dict(world), learner=dict(learner), seed=seed, test=test)
    learnt = job.learner.fit(job.world, seed)
    found = measure(job, learnt)
    stream = Stream(seed).child("class probes")
    samples = [job.world.sample(test, stream.child(name)) for name in ("train", "validation", "test")]
    parts = Parts(*((learnt(s.x).numpy(), np.asarray(s.y)) for s in samples))
    best = job.world.log_posterior(samples[2].z).argmax(1)
    found["probe"], found["knn"] = linear_probe(parts).accuracy, neighbours_probe(parts).accuracy
    found["bayes"] = float((best == samples[2].y).float().mean())
    return found


def probed(rows: Rows, source: Any, view: Any, seed: int) -> dict[str, Any]:
    """What is read from features: probes, neighbours of the same class, and scores without labels.

    source: [n, ...] to [n, d]. view: one random view of rows for a stream, None for no views. linear and knn have
    accuracy, low, high, validation and chosen; alike is the share of a held-out picture's 8 nearest ones that are of
    its class; rankme, uniformity, lidar and alignment are measured on held-out pictures.
    """
    parts = rows.parts(source)
    held = torch.from_numpy(parts.test[0])
    near = nearest(held - held.mean(0), range(len(held)), NEIGHBOURS)
    found: dict[str, Any] = {
        "linear": _told(linear_probe(parts)),
        "knn": _told(neighbours_probe(parts)),
        "alike": float((rows.held_y[near] == rows.held_y[:, None]).mean()),
        "width": held.shape[1],
        "rankme": float(effective_rank(held, centred=False).value),
        "uniformity": float(uniformity(held).value),
    }
    if view is not None:
        x = rows.held[:: -(-len(rows.held) // VIEWED)]  # in the order of the files, which are often sorted by class
        drawn = [source(view(x, Stream(seed).child(f"look {number}"))) for number in range(VIEWS)]
        group = torch.arange(len(x)).repeat(VIEWS)
        found["lidar"] = float(lidar(torch.cat(drawn), group).value)
        found["alignment"] = float(alignment(torch.cat(drawn), group).value)
    return found


def unpacked(packed: Mapping[str, Any]) -> np.ndarray:
    """Pictures [q, 1 + neighbours, height, width, channels] of bytes that a result holds."""
    raw = zlib.decompress(base64.b64decode(packed["pixels"]))
    return np.frombuffer(raw, np.uint8).reshape(packed["shape"])


def views_of(world: Images, augment: Augment, count: int, seed: int) -> np.ndarray:
    """`count` pictures, each with 5 views, as bytes [count, 6, height, width, channels]."""
    x = world.sample(count, Stream(seed).child("shown")).x
    drawn = [x, *(augment(x, Stream(seed).child(f"shown {number}")) for number in range(5))]
    return _bytes(torch.stack(drawn, 1))


def _pictures(rows: Rows, source: Any, count: int, seed: int) -> dict[str, Any]:
    """Held-out queries, the first of every class in turn, each followed by its neighbours."""
    h = source(rows.held)
    order = [np.flatnonzero(rows.held_y == label)[0] for label in np.unique(rows.held_y)][:count]
    near = nearest(h - h.mean(0), order, NEIGHBOURS)
    places = np.concatenate([np.asarray(order)[:, None], near], 1)
    pixels = _bytes(rows.held[torch.from_numpy(places)])
    return {
        "shape": list(pixels.shape),
        "pixels": base64.b64encode(zlib.compress(pixels.tobytes(), 9)).decode(),
        "right": (rows.held_y[near] == rows.held_y[order][:, None]).tolist(),
    }


def _plain_loss(world: Images, learnt: Any) -> float:
    """Unsmoothed cross-entropy of the head on unchanged training pictures, over ln N: 1 for a uniform guess."""
    from unmix.kernels.index_loss import index_cross_entropy

    sample = world.rows()
    h, weights = learnt(sample.x), learnt.parts["weights"]
    losses = [
        float(index_cross_entropy(float(learnt.parts["beta"]) * part, weights, y, 0.0)) * len(y)
        for part, y in zip(h.split(1024), sample.index.split(1024), strict=True)
    ]
    return sum(losses) / len(h) / float(np.log(world.size))


def _bytes(x: Tensor) -> np.ndarray:
    return np.ascontiguousarray((x.clamp(0, 1) * 255).round().to(torch.uint8).movedim(-3, -1).numpy())


def _flat(x: Tensor) -> Tensor:
    return x.flatten(1).float()


def _told(probe: Any) -> dict[str, float]:
    return {key: value for key, value in probe._asdict().items() if key != "name"}
