"use strict";
// The right side: one feature, or the overview. Shares functions and data with atlas.js.

function steps(f) {
  const at = state.order.indexOf(f), button = (label, key, act, off) =>
    el("button", { type: "button", onclick: act, disabled: off ? "" : null, title: `key ${key}` }, label, el("kbd", {}, key));
  return el("nav", { class: "steps", "aria-label": "Steps through the list" },
    button("← previous", "k", () => step(-1), at === 0), button("next →", "j", () => step(1), at >= 0 && at === state.order.length - 1),
    button("random", "r", random), at < 0 ? null : el("span", { class: "place" }, `${whole(at + 1)} of ${whole(state.order.length)} in the list`));
}

function featurePage(f, detail) {
  const title = S.names?.[f] || words(f).join(" · ");
  const head = [steps(f), el("div", { class: "heading" },
    S.atoms ? el("figure", {}, atomPicture(f, 96), el("figcaption", {}, "atom")) : null,
    el("div", {}, el("h2", {}, el("span", { class: "what" }, "Feature "), String(f)), title ? el("p", { class: "gloss" }, el("bdi", {}, title)) : null))];
  const facts = S.columns.map((c) => [c.name, c.number ? number(c.values[f]) : c.values[f] ?? "–", c.notes?.[f]]);
  if (dead(f)) return [...head, el("p", { class: "notice" }, "This feature is dead: it fires on none of the ",
    plural(S.rows, "row"), ". Only its atom can be compared."), figures(facts), el("div", { class: "aside alone" }, others(detail)[0])];
  const bandNames = { high: "Highest third", middle: "Middle third", low: "Lowest third", silent: "Silent" };
  const noun = { text: "contexts", image: "images", vector: "rows" }[S.kind];
  return [...head,
    figures([["fires on", percent(S.rate[f]), `${whole(S.count[f])} of ${plural(S.rows, "row")}`],
      [columns[3].label, number(S.mean[f]), "where it fires"],
      [S.signed ? "farthest from zero" : "largest activation", number(S.peak[f])], ...facts]),
    el("div", { class: "columns" },
      el("div", { class: "evidence" },
        el("section", {}, el("h3", {}, "Activations"), histogram(f, detail.bands)),
        el("section", {}, el("h3", {}, `Strongest ${noun}`), strongest(detail.top, f),
          detail.ties.map(([value, count]) => el("p", { class: "note" },
            `${whole(count)} rows have the same activation, ${number(value)}: which of them are shown was drawn at random.`))),
        el("section", {}, el("h3", {}, "Across the range"),
          el("p", { class: "note" }, `Drawn at random from each third of the rows where it fires, so that the strongest do not stand for all. Nothing shown above is repeated.`),
          detail.bands.length ? detail.bands.map(([name, low, high, count, list]) => el("div", { class: "band" },
            el("h4", {}, bandNames[name], el("span", {}, name === "silent" ? `zero · ${plural(count, "row")}`
              : `${S.signed ? "|activation| " : ""}${number(low)} to ${number(high)} · ${plural(count, "row")}`)),
            list.length ? contexts(list, f) : el("p", { class: "note" }, "Nothing that is not shown above.")))
            : el("p", { class: "note" }, "It fires on too few rows for that."))),
      el("div", { class: "aside" }, common(detail.common), others(detail)))];
}

function figures(list) {
  return el("dl", { class: "figures" }, list.map(([name, value, more]) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, el("bdi", {}, value), more ? el("small", {}, more) : null))));
}

function histogram(f, bands) {
  const [low, high, bins] = S.bins[f], W = Math.max(280, Math.min(680, $("page").clientWidth - 56)), H = 150;
  const left = 40, right = 8, base = H - 24, top = Math.log1p(Math.max(...bins));
  const x = (v) => left + (W - left - right) * (v - low) / (high - low), y = (n) => base - (base - 10) * Math.log1p(n) / top;
  const powers = [1, 10, 100, 1e3, 1e4, 1e5, 1e6, 1e7].filter((n) => Math.log1p(n) <= top * 1.001);
  const marks = [...new Set([low, 0, (low + high) / 2, high])].filter((v) => v >= low && v <= high)
    .filter((v, i, all) => all.every((w, j) => j >= i || Math.abs(x(v) - x(w)) > 44));
  const wide = (W - left - right) / bins.length;
  return el("figure", { class: "histogram" }, svg("svg", { viewBox: `0 0 ${W} ${H}`, width: W, height: H, role: "img",
    "aria-label": `Histogram of ${plural(S.count[f], "activation")} from ${number(low)} to ${number(high)}, counts on a logarithmic scale` },
    powers.map((n) => [svg("line", { class: "grid", x1: left, x2: W - right, y1: y(n), y2: y(n) }),
      svg("text", { x: left - 6, y: y(n) + 4, "text-anchor": "end" }, n < 1e3 ? String(n) : n < 1e6 ? `${n / 1e3}k` : `${n / 1e6}M`)]),
    bins.map((n, i) => n ? svg("rect", { class: "bar", x: left + i * wide + 0.5, width: wide - 1, y: y(n), height: base - y(n) },
      svg("title", {}, `${number(low + (high - low) * i / bins.length)} to ${number(low + (high - low) * (i + 1) / bins.length)}: ${plural(n, "row")}`)) : null),
    S.signed ? null : bands.slice(0, 2).map(([name, cut]) => svg("line", { class: "cut", x1: x(cut), x2: x(cut), y1: 4, y2: base },
      svg("title", {}, `the ${name} third begins at ${number(cut)}`))),
    svg("line", { class: "axis", x1: left, x2: W - right, y1: base, y2: base }),
    marks.map((v) => svg("text", { x: x(v), y: H - 7, "text-anchor": v === high ? "end" : v === low ? "start" : "middle" }, number(v)))),
  el("figcaption", { class: "note" }, "Rows by activation, counts on a logarithmic scale.",
    S.rows > S.count[f] ? ` Not drawn: ${plural(S.rows - S.count[f], "row")} at zero.` : null,
    S.signed || !bands.length ? null : " Dashed: where the thirds meet."));
}

// ---- rows --------------------------------------------------------------------------------------------------------
function strongest(list, f) {
  const value = (context) => context[1], up = list.filter((c) => value(c) > 0), down = list.filter((c) => value(c) < 0);
  return up.length && down.length ? [["Above zero", up], ["Below zero", down]].map(([name, part]) =>
    el("div", { class: "band" }, el("h4", {}, name), contexts(part, f))) : contexts(list, f);
}

function contexts(list, f) {
  if (S.kind === "vector") return el("table", { class: "numbers" }, el("thead", {}, el("tr", {}, el("th", {}, "row"), el("th", {}, "activation"))),
    el("tbody", {}, list.map(([row, value]) => el("tr", {}, el("td", {}, whole(row)), el("td", {}, number(value))))));
  if (S.kind === "image") return el("div", { class: "pictures" }, list.map(([row, value, slot, label]) => {
    const text = label === null ? "" : T.tokens[label];
    return el("figure", { title: `row ${whole(row)}` },
      picture(`data/rows-${pad(Math.floor(f / S.chunk))}.png`, slot, S.picture, 72, `row ${row} ${text}`),
      el("figcaption", {}, el("bdi", {}, text), el("b", {}, number(value))));
  }));
  const peak = Math.abs(S.peak[f]);
  return el("ol", { class: "contexts" }, list.map((context) => el("li", {}, el("b", { class: "value" }, number(context[1])),
    el("p", { class: "text", dir: "auto" }, tokens(context, peak)),
    el("p", { class: "source", title: `row ${whole(context[0])}` }, el("bdi", {}, T.titles[context[2]])))));
}

function tokens([, , , centre, ids, marks, without], peak) {
  const values = new Map(), dim = new Set(without);
  for (let i = 0; i < marks.length; i += 2) values.set(marks[i], marks[i + 1]);
  return ids.flatMap((id, i) => {
    const raw = T.tokens[id], glued = raw.length > 2 && raw.startsWith("##"), value = values.get(i);
    const kind = ["token", i === centre ? "centre" : "", dim.has(i) ? "dim" : "", value < 0 ? "cold" : ""].filter(Boolean).join(" ");
    const note = dim.has(i) ? "not a row: it has no activation" : value === undefined ? "0" : number(value);
    return [i === 0 || glued ? null : " ", el("span", { class: kind, title: note, "data-value": value ?? null,
      "--a": value === undefined ? null : (0.12 + 0.88 * Math.min(1, Math.abs(value) / peak)).toFixed(3) },
    visible(glued ? raw.slice(2) : raw))];
  });
}

function picture(url, slot, [width, height, across], target, label) {
  const scale = width <= target ? Math.max(1, Math.floor(target / width)) : target / width, px = (n) => `${n * scale}px`;
  const node = el("span", { class: scale > 1 ? "picture crisp" : "picture", role: "img", "aria-label": label });
  Object.assign(node.style, { width: px(width), height: px(height), backgroundImage: `url("${url}")`,
    backgroundSize: `${px(width * across)} auto`, backgroundPosition: `${px(-width * (slot % across))} ${px(-height * Math.floor(slot / across))}` });
  return node;
}
const atomPicture = (f, size) => picture(`data/atoms-${pad(Math.floor(f / S.chunk))}.png`, f % S.chunk, S.atoms, size, `atom ${f}`);

// ---- beside the rows ---------------------------------------------------------------------------------------------
function tableOf(title, note, heads, lines) {
  return el("section", {}, el("h3", {}, title), lines.length ? el("table", {}, el("thead", {}, el("tr", {}, heads.map((h) => el("th", {}, h)))),
    el("tbody", {}, lines.map((cells) => el("tr", {}, cells.map((cell) => el("td", {}, cell)))))) : null, el("p", { class: "note" }, note));
}

function common(list) {
  if (S.kind === "vector" || !list.length) return null;
  const one = S.kind === "text" ? "token" : "label";
  return tableOf(`${one === "token" ? "Tokens" : "Labels"} it fires on`, `Share: of all rows with this ${one}. Ordered by summed activation.`,
    [one, "rows", "share", "mean"],
    list.map(([id, rows, share, mean]) => [el("bdi", { class: "word" }, visible(T.tokens[id])), whole(rows), percent(share), number(mean)]));
}

function others({ near, together }) {
  const link = (f) => el("a", { href: `#f=${f}` }, S.atoms ? atomPicture(f, 18) : null, el("b", {}, String(f)), " ", el("bdi", {}, named(f) || (dead(f) ? "dead" : "")));
  return [tableOf("Nearest atoms", near.length ? "By the cosine of the atoms." : "Its atom is zero, or there is no other.", ["feature", "cosine"],
    near.map(([f, cosine]) => [link(f), cosine.toFixed(2).replace("-0.00", "0.00").replace("-", "−")])),
  tableOf("Fires together with", together.length ? "Above chance (lift over 1), by Jaccard index." : "No feature fires with it more often than by chance.",
    ["feature", "Jaccard", "lift"], together.map(([f, jaccard, lift]) => [link(f), jaccard.toFixed(2), number(lift)]))];
}

// ---- overview ----------------------------------------------------------------------------------------------------
function overview(unknown) {
  const gone = S.count.filter((n) => n === 0).length, dense = S.rate.filter((r) => r > DENSE).length;
  const noun = { text: "tokens", image: "images", vector: "rows" }[S.kind];
  const axes = columns.filter((c) => c.number && c.key !== "index" && c.key !== "rate");
  return [unknown === null ? null : el("p", { class: "notice" }, `There is no feature ${whole(unknown)}; the last is ${whole(S.width - 1)}.`),
    el("h2", {}, "Overview"),
    figures([["features", whole(S.width)], [noun, whole(S.rows), S.documents ? `from ${plural(S.documents, "document")}` : null],
      ["dead", whole(gone), "fire on no row"], ["dense", whole(dense), "fire on more than 10 %"]]),
    el("section", { class: "mapped" }, el("h3", {}, "All features"),
      el("label", { class: "note" }, "Draw ",
        el("select", { id: "axis", onchange: drawMap }, axes.map((c) => el("option", { value: c.key }, `firing rate and ${c.label}`)),
          S.map ? el("option", { value: "map" }, "map of the atoms") : null)),
      el("canvas", { id: "map", role: "img", "aria-label": "Scatter of all features that fire; the list holds the same features",
        onpointermove: (event) => point(event, false), onclick: (event) => point(event, true) }),
      el("p", { class: "note", id: "pointed" }, "Each dot is a feature. Choose one to open it."),
      S.map ? el("p", { class: "note", id: "plane", hidden: "" }, `The two principal axes of the atoms, each of unit length, hold ${percent(S.map_share)} of their spread: what is near here may be far apart.`) : null),
    el("section", {}, el("h3", {}, "How to read a feature"), el("ul", { class: "reading" }, [
      S.kind === "text" ? "Each token is shaded by the feature's activation there, relative to its largest anywhere; hover for the number. Grey tokens are not rows." : null,
      S.kind === "text" ? "The underlined token is the row that the context is listed for. At most three contexts come from one document, unless there are too few." : null,
      S.signed ? "Activations have both signs: warm is above zero, blue below; the strongest of both are listed, by their distance from zero." : null,
      S.atoms ? "An atom's picture is blue below zero and red above, scaled to its own largest value." : null,
      "Strong examples alone mislead: compare them with those drawn across the range before naming a feature.",
      "Keys: j and k step through the list, / searches, r opens a random feature. A number in the search jumps to that feature."]
      .filter(Boolean).map((text) => el("li", {}, text)))),
    S.about.length ? el("section", {}, el("h3", {}, "About"), el("dl", { class: "about" },
      S.about.map(([key, value]) => [el("dt", {}, el("bdi", {}, key)), el("dd", {}, el("bdi", {}, value))]))) : null];
}

let dots = [];
function drawMap() {
  const canvas = $("map"), plane = $("axis").value === "map", column = columns.find((c) => c.key === $("axis").value), style = getComputedStyle(canvas), colour = (name) => style.getPropertyValue(name);
  const W = canvas.clientWidth, H = canvas.clientHeight, ratio = devicePixelRatio || 1, pen = canvas.getContext("2d");
  [canvas.width, canvas.height] = [W * ratio, H * ratio];
  pen.scale(ratio, ratio);
  const across = plane ? (f) => S.map[0][f] : (f) => Math.log10(S.rate[f]), up = plane ? (f) => S.map[1][f] : (f) => column.values[f];
  const live = S.rate.map((_, f) => f).filter((f) => !dead(f) && up(f) !== null);
  if (S.map) $("plane").hidden = !plane;
  const [left, right, top, base] = [46, 14, 12, H - 26], ends = (list) => list.reduce(([a, b], v) => [Math.min(a, v), Math.max(b, v)], [Infinity, -Infinity]);
  const [x0, x1] = ends(live.map(across)), [y0, y1] = ends(live.map(up));
  const at = (v, a, b, from, to) => b > a ? from + (to - from) * (v - a) / (b - a) : (from + to) / 2;
  const x = (v) => at(v, x0, x1, left + 8, W - right - 8), y = (v) => at(v, y0, y1, base - 8, top + 8);
  dots = live.map((f) => [f, x(across(f)), y(up(f))]);
  pen.font = "11px ui-monospace, monospace";
  pen.fillStyle = colour("--rule");
  const powers = [], levels = live.length ? [...new Set([y0, (y0 + y1) / 2, y1])] : [];
  for (let power = Math.ceil(x0); power <= x1 && !plane; power++) powers.push(power);
  for (const power of powers) pen.fillRect(Math.round(x(power)), top, 1, base - top);
  for (const v of levels) pen.fillRect(left, Math.round(y(v)), W - left - right, 1);
  pen.fillStyle = colour("--faint");
  pen.textAlign = "center";
  for (const power of powers) pen.fillText(percent(10 ** power), Math.max(left + 12, Math.min(W - 24, x(power))), H - 9);
  if (!live.length) pen.fillText("nothing to draw", W / 2, H / 2);
  pen.textAlign = "right";
  for (const v of levels) pen.fillText(number(v), left - 6, y(v) + 4);
  pen.fillStyle = colour("--accent");
  pen.globalAlpha = Math.max(0.25, Math.min(0.8, 300 / live.length));
  for (const [, a, b] of dots) { pen.beginPath(); pen.arc(a, b, 2.6, 0, 7); pen.fill(); }
}

function point(event, choose) {
  const box = $("map").getBoundingClientRect(), a = event.clientX - box.left, b = event.clientY - box.top;
  let best = null, least = NEAR ** 2;
  for (const [f, x, y] of dots) { const far = (x - a) ** 2 + (y - b) ** 2; if (far < least) [best, least] = [f, far]; }
  $("map").style.cursor = best === null ? "" : "pointer";
  if (best !== null && choose) location.hash = `f=${best}`;
  else $("pointed").textContent = best === null ? "Each dot is a feature. Choose one to open it."
    : [`Feature ${best}`, `fires ${percent(S.rate[best])}`, named(best), ...S.columns.filter((c) => c.number).slice(0, 2).map((c) => `${c.name} ${number(c.values[best])}`)].filter(Boolean).join(" – ");
}
