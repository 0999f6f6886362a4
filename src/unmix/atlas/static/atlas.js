"use strict";
// Everything that comes from data reaches the page as text nodes or attributes, never as markup.
// Data are script tags that call atlasData(), because a page opened from disk may not fetch files.

const ROW = 58, DENSE = 0.1, NEAR = 14;
const $ = (id) => document.getElementById(id);
const loaded = new Map(), asked = new Map();
const state = { current: null, order: [], sort: "index", up: true, words: null };
let S, T, columns, hay;

function atlasData(name, value) { loaded.set(name, value); }

function load(name) {
  if (!asked.has(name)) asked.set(name, new Promise((resolve, reject) => {
    const missing = () => { asked.delete(name); reject(new Error(`data/${name}.js is missing or cut off; write the atlas again.`)); };
    const script = el("script", { src: `data/${name}.js` });
    script.onload = () => loaded.has(name) ? resolve(loaded.get(name)) : missing();
    script.onerror = missing;
    document.head.append(script);
  }));
  return asked.get(name);
}

function fill(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined) continue;
    if (key.startsWith("on")) node.addEventListener(key.slice(2), value);
    else if (key.startsWith("--")) node.style.setProperty(key, value);
    else node.setAttribute(key, value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return node;
}
const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

// ---- words and numbers -------------------------------------------------------------------------------------------
const whole = (x) => Number(x).toLocaleString("en");
function number(x) {
  if (x === null || x === undefined) return "–";
  if (Number.isInteger(x) || Math.abs(x) >= 1e4) return whole(Math.round(x)).replace("-", "−");
  return String(Number(x.toPrecision(3))).replace("-", "−");
}
const percent = (x) => x === null ? "–" : x === 0 ? "0 %" : `${Number((100 * x).toPrecision(x < 1e-5 ? 1 : 3))} %`;
const visible = (text) => text === "" ? "∅" : text.replace(/[\n\r\u2028\u2029]/g, "↵").replace(/\t/g, "⇥").replace(/^ +$/, "␣");
const plural = (n, one) => `${whole(n)} ${one}${n === 1 ? "" : "s"}`;
const dead = (f) => S.count[f] === 0;
const words = (f) => S.labels[f].map((id) => visible(T.tokens[id]));
const named = (f) => S.names?.[f] || words(f).slice(0, 3).join(" · ");
const pad = (n) => String(n).padStart(3, "0");

// ---- start -------------------------------------------------------------------------------------------------------
Promise.all([load("summary"), load("texts")]).then(([summary, texts]) => {
  [S, T] = [summary, texts];
  columns = [
    { key: "index", label: "index", number: true, values: S.rate.map((_, f) => f), show: whole },
    { key: "rate", label: "firing rate", number: true, values: S.rate, show: percent },
    { key: "peak", label: S.signed ? "largest |activation|" : "largest activation", number: true,
      values: S.peak.map((x) => x === null ? null : Math.abs(x)), show: number },
    { key: "mean", label: S.signed ? "mean |activation|" : "mean activation", number: true, values: S.mean, show: number },
    ...S.columns.map((c, i) => ({ key: `x${i}`, label: c.name, number: c.number, values: c.values,
      show: c.number ? number : (x) => x ?? "–" })),
  ];
  const texted = columns.filter((c) => !c.number);
  hay = S.rate.map((_, f) =>
    [f, S.names?.[f] ?? "", ...words(f), ...texted.map((c) => c.values[f] ?? "")].join("\n").toLowerCase());
  $("title").append(S.title);
  $("subtitle").append(S.subtitle);
  $("verdict").append(el("b", {}, "How far to trust this "), S.verdict);
  $("search").placeholder = T.tokens.length ? `Number, name or ${S.kind === "text" ? "token" : "label"}` : "Number or name";
  $("deep-label").hidden = S.kind !== "text";
  $("sort").append(...columns.map((c) => el("option", { value: c.key }, c.label)));
  const count = (test) => whole(S.rate.filter((r, f) => test(f, r)).length);
  for (const [key, [label, test]] of Object.entries(SHOWN))
    $("show").append(el("option", { value: key }, `${label} (${count(test)})`));
  listen();
  arrange();
  route();
}).catch((error) => show([el("p", { class: "notice" }, error.message)]));

const SHOWN = {
  all: ["all", () => true],
  live: ["hide dead", (f) => !dead(f)],
  sparse: ["hide dead and dense", (f, rate) => !dead(f) && rate <= DENSE],
  dense: ["dense, > 10 %", (f, rate) => rate > DENSE],
  dead: ["dead", (f) => dead(f)],
};

// ---- the list ----------------------------------------------------------------------------------------------------
function found(query) {
  const terms = query.toLowerCase().split(/\s+/).filter(Boolean);
  if (!terms.length) return () => true;
  const exact = /^#?\d+$/.test(query.trim()) ? Number(query.trim().replace("#", "")) : null;
  const hits = terms.map((term) => state.words && T.tokens.map((token) => token.toLowerCase().includes(term)));
  return (f) => f === exact ||
    terms.every((term, i) => hay[f].includes(term) || (hits[i] && state.words[f].some((id) => hits[i][id])));
}

function arrange() {
  const query = $("search").value, test = found(query), shown = SHOWN[$("show").value || "all"][1];
  const { values, number: numeric } = columns.find((c) => c.key === state.sort), way = state.up ? 1 : -1;
  const all = S.rate.map((_, f) => f).filter(test);
  const empty = (f) => values[f] === null;
  state.order = all.filter((f) => shown(f, S.rate[f])).sort((a, b) =>
    empty(a) || empty(b) ? empty(a) - empty(b) || a - b
      : way * (numeric ? values[a] - values[b] : values[a].localeCompare(values[b])) || a - b);
  const exact = Number(query.trim().replace("#", ""));
  if (/^#?\d+$/.test(query.trim()) && state.order.includes(exact))
    state.order = [exact, ...state.order.filter((f) => f !== exact)];
  $("direction").textContent = state.up ? "↑ ascending" : "↓ descending";
  const hidden = all.length - state.order.length;
  $("count").textContent = state.order.length === S.width ? plural(S.width, "feature")
    : `${whole(state.order.length)} of ${plural(S.width, "feature")}`;
  $("rows").replaceChildren();
  $("scroll").scrollTop = 0;
  if (state.order.length) return draw();
  $("rows").style.height = "";
  $("rows").append(el("div", { class: "nothing" },
    el("p", {}, query.trim() ? "No feature matches " : "No feature is of this kind.", query.trim() ? el("q", {}, query.trim()) : null),
    hidden ? el("p", {}, `${plural(hidden, "feature")} left out by “show: ${SHOWN[$("show").value][0]}”.`) : null,
    query.trim() && S.kind === "text" && !state.words ? el("p", {}, "Names and the most frequent tokens were searched, the contexts were not.") : null,
    el("button", { type: "button", onclick: clear }, "Show all features")));
}

function clear() { $("search").value = ""; $("show").value = "all"; arrange(); reveal(); }

function draw() {
  const box = $("scroll"), rows = $("rows"), total = state.order.length;
  if (!total) return;
  rows.style.height = `${total * ROW}px`;
  const first = Math.max(0, Math.floor(box.scrollTop / ROW) - 8);
  const last = Math.min(total, Math.ceil((box.scrollTop + (box.clientHeight || 900)) / ROW) + 8);
  rows.replaceChildren(...state.order.slice(first, last).map((f, i) => line(f, first + i)));
}

function line(f, place) {
  const column = columns.find((c) => c.key === state.sort);
  const first = ["index", "rate"].includes(state.sort) ? "" : `${column.label} ${column.show(column.values[f])} · `;
  return el("a", { class: dead(f) ? "line dead" : "line", href: `#f=${f}`, "--top": `${place * ROW}px`, "data-f": f,
    "aria-current": f === state.current ? "true" : null },
  el("span", { class: "index" }, String(f)),
  S.atoms ? atomPicture(f, 34) : null,
  el("span", { class: "words" },
    el("bdi", { class: "label" }, dead(f) ? S.names?.[f] || "never fires" : named(f) || `peak ${number(S.peak[f])}`),
    el("span", { class: "facts" }, first, dead(f) ? "dead" : `fires ${percent(S.rate[f])}`)),
  spark(f));
}

function spark(f) {
  const bins = S.bins[f][2], top = Math.log1p(Math.max(1, ...bins));
  return svg("svg", { class: "spark", viewBox: `0 0 ${2 * Math.max(1, bins.length)} 20`, preserveAspectRatio: "none", "aria-hidden": "true" },
    bins.map((n, i) => n ? svg("rect", { x: 2 * i, width: 1.6, y: 20 - 20 * Math.log1p(n) / top, height: 20 * Math.log1p(n) / top }) : null));
}

function reveal() {
  const place = state.order.indexOf(state.current), box = $("scroll");
  if (place >= 0 && (place * ROW < box.scrollTop || (place + 1) * ROW > box.scrollTop + box.clientHeight))
    box.scrollTop = place * ROW - box.clientHeight / 2 + ROW / 2;
  draw();
}

// ---- going about -------------------------------------------------------------------------------------------------
function route() {
  const match = /^#f=(\d+)$/.exec(location.hash);
  browse(false);
  if (match && Number(match[1]) < S.width) return open(Number(match[1]));
  state.current = null;
  $("home").setAttribute("aria-current", "page");
  document.title = S.title;
  show(overview(match ? Number(match[1]) : null));
  drawMap();
  draw();
}

function open(f) {
  state.current = f;
  $("home").removeAttribute("aria-current");
  document.title = [String(f), named(f), S.title].filter(Boolean).join(" – ");
  reveal();
  const chunk = Math.floor(f / S.chunk);
  load(`detail-${pad(chunk)}`).then((details) => {
    if (state.current !== f) return;
    show(featurePage(f, details[f % S.chunk]));
  }).catch((error) => state.current === f && show([steps(f), el("p", { class: "notice" }, error.message)]));
}

function show(parts) {
  $("page").replaceChildren();
  fill($("page"), {}, parts).scrollTop = 0;
}

function go(f) { history.replaceState(null, "", `#f=${f}`); route(); if (innerWidth <= 860) scrollTo(0, $("page").offsetTop); }
function step(by) {
  const at = state.order.indexOf(state.current), n = state.order.length;
  if (n) go(state.order[at < 0 ? 0 : Math.min(n - 1, Math.max(0, at + by))]);
}
function random() {
  const pool = state.order.filter((f) => !dead(f) && f !== state.current);
  if (pool.length) go(pool[Math.floor(Math.random() * pool.length)]);
}
function browse(on) { document.body.classList.toggle("browsing", on); $("browse").setAttribute("aria-expanded", String(on)); if (on) draw(); }

function listen() {
  addEventListener("hashchange", route);
  const redraw = () => { draw(); if (state.current === null) drawMap(); };
  addEventListener("resize", redraw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  $("scroll").addEventListener("scroll", draw, { passive: true });
  $("search").addEventListener("input", arrange);
  $("show").addEventListener("change", arrange);
  $("sort").addEventListener("change", () => {
    state.sort = $("sort").value;
    state.up = state.sort === "index" || !columns.find((c) => c.key === state.sort).number;
    arrange();
  });
  $("direction").addEventListener("click", () => { state.up = !state.up; arrange(); });
  $("deep").addEventListener("change", async () => {
    try { state.words = $("deep").checked ? await load("words") : null; arrange(); }
    catch (error) { $("count").textContent = error.message; }
  });
  $("tools").addEventListener("submit", (event) => { event.preventDefault(); if (state.order.length) { $("search").blur(); go(state.order[0]); } });
  $("browse").addEventListener("click", () => browse(!document.body.classList.contains("browsing")));
  $("veil").addEventListener("click", () => browse(false));
  $("rows").addEventListener("click", (event) => { if (event.target.closest("a")) browse(false); });
  const keys = { j: () => step(1), ArrowDown: () => step(1), k: () => step(-1), ArrowUp: () => step(-1), r: random,
    "/": () => { browse(true); $("search").focus(); $("search").select(); }, Escape: () => browse(false) };
  addEventListener("keydown", (event) => {
    const typing = event.target.closest?.("input, select, textarea");
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (typing) {
      // A search field would clear itself without an event; the results are kept to step through.
      if (event.key === "Escape") { event.preventDefault(); event.target.blur(); browse(false); }
      return;
    }
    // Arrow keys scroll a page that the reader has put the focus in.
    if (event.key.startsWith("Arrow") && $("page").contains(document.activeElement)) return;
    if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  });
}
