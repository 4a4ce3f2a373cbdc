// The attention viewer: an atlas of all heads, the pattern of the selected head as a tile, and the text.
//
// mount(root, data, send) renders `data` (from interp.figures.view_data) into `root` and returns a clean-up function. Mounting again on
// the same root updates the data and keeps focus, pins and zoom. `send(name, value)` reports every selection: head [layer, head], window
// [q0, q1, k0, k1] (ends excluded), gamma. Without `send` the view is self-contained. Tokens are inserted as text only.

const views = new WeakMap();
const KEEP = ["head", "window", "gamma"];
const LABEL = 11; // height of a label in pixels
const CELL = 26; // largest cell of a tile, in pixels
const TALL = 560; // largest height of a tile, in pixels
const FEW = 9; // with fewer rows or columns cells need not be square, so that labels fit
const TITLES = ["key →", "query ↓"]; // of the columns and rows, in the corner between their labels
const BESIDE = 700; // container width from which the legend is beside the tile (as in the style sheet)
const LEGIBLE = 0.85; // scale from which the labels in the atlas image are legible
const SMALL = 120; // side of the overview, in pixels
const READABLE = 600; // most tokens shown as text
const NEIGHBOURS = 12; // tokens shown before and after the window
const GAMMAS = [[1, "1"], [0.5, "½"], [0.25, "¼"]];
const DIRECTIONS = [["both", "both"], ["to", "attends to"], ["by", "attended by"]];
const SYMBOLS = { " ": "·", "\n": "↵", "\t": "→", "\r": "←" };
const STEPS = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000];
let mounted = 0;

export default function ({ data, parentElement, setTriggerValue }) {
  return mount(parentElement, data, setTriggerValue);
}

export function mount(root, data, send) {
  let view = views.get(root);
  if (view) view.update(data, send);
  else views.set(root, (view = create(root, data, send)));
  return () => {
    view.remove();
    views.delete(root);
  };
}

function create(root, data, send) {
  const box = element("div", "attention-viewer");
  const timers = {};
  const pending = Object.fromEntries(KEEP.map((name) => [name, []]));
  const view = { box, data: {}, state: { direction: "both", focus: null, pinned: null, cursor: null }, tiles: [], version: 0 };
  view.id = `attention-viewer-${(mounted += 1)}`;
  view.change = (part, report = true) => {
    Object.assign(view.state, part);
    for (const [name, value] of Object.entries(part)) {
      if (!report || !view.send || !KEEP.includes(name)) continue;
      if (timers[name]) pending[name].pop();
      pending[name].push(value);
      clearTimeout(timers[name]);
      timers[name] = setTimeout(() => {
        timers[name] = 0;
        view.send(name, value);
      }, 90);
    }
    draw();
  };
  view.tip = element("div", "tip", { hidden: true });
  const parts = [headline(view), atlas(view), tile(view), text(view)];
  const panels = element("div", "panels");
  panels.append(parts[1].box, parts[2].box);
  box.append(parts[0].box, panels, parts[3].box, view.tip);

  async function draw() {
    const key = String(view.state.head);
    const wanted = view.data.tiles?.[key];
    for (const part of parts) part.draw();
    if (wanted === view.wanted) return;
    view.wanted = wanted;
    const decoded = await Promise.all((wanted ?? []).map(decode));
    if (view.wanted !== wanted) return; // another head has been selected meanwhile
    if (wanted || !view.send) Object.assign(view, { tiles: decoded, drawn: wanted ? key : null, version: view.version + 1 });
    for (const part of parts) part.draw();
  }

  // Whether to adopt a value of new data: if it changed, unless the reply to a later selection of the user is pending.
  const adopts = (name, value, last) => {
    const at = pending[name].findIndex((one) => same(one, value));
    const changed = !same(value, last);
    if (at >= 0) pending[name].splice(0, at + 1);
    else if (changed) pending[name] = [];
    return changed && !pending[name].length;
  };
  view.update = (next, sender) => {
    const { data: last, state } = view;
    const fresh = !same(last.tokens, next.tokens);
    Object.assign(view, { data: next, send: sender });
    for (const name of KEEP) {
      if (adopts(name, next[name], last[name]) || (fresh && name === "window")) state[name] = next[name];
    }
    if (fresh) Object.assign(state, { focus: null, pinned: null, cursor: null });
    state.head ??= Object.keys(next.tiles ?? {})[0]?.split(",").map(Number);
    state.gamma ??= 1;
    state.window ??= whole(next);
    box.classList.toggle("dark", Boolean(next.dark));
    view.colours = colours(next.palette, state.gamma);
    draw();
  };
  const sizes = new ResizeObserver(() => parts.slice(1, 3).forEach((part) => part.draw()));
  view.remove = () => {
    Object.values(timers).forEach(clearTimeout);
    sizes.disconnect();
    box.remove();
  };
  root.append(box);
  view.update(data, send);
  sizes.observe(box);
  return view;
}

// ---------------------------------------------------------------- parts

function headline(view) {
  const box = element("header", "headline");
  const name = element("span", "name", { role: "status" });
  const label = element("span", "label");
  const pick = element("select", "pick", { "aria-label": "Head" });
  const caption = element("span", "caption");
  const notes = element("p", "notes");
  box.append(name, pick, label, caption, notes);
  pick.addEventListener("change", () => view.change({ head: pick.value.split(",").map(Number) }));
  let listed = null;
  return {
    box,
    draw() {
      const { data, state } = view;
      const heads = Object.keys(data.tiles ?? {});
      pick.hidden = Boolean(data.atlas) || heads.length < 2;
      name.hidden = !state.head || !pick.hidden;
      if (!pick.hidden && !same(listed, heads)) {
        pick.replaceChildren(...heads.map((key) => element("option", "", { value: key }, headName(key))));
        listed = heads;
      }
      if (!pick.hidden) pick.value = String(state.head);
      write(name, state.head ? headName(state.head) : "");
      write(label, data.labels?.[String(state.head)] ?? "");
      write(caption, data.caption ?? "");
      write(notes, (data.notes ?? []).join(" · "));
      notes.hidden = !data.notes?.length;
    },
  };
}

function atlas(view) {
  const box = element("section", "atlas");
  const grid = element("div", "grid", { role: "grid", tabindex: 0 });
  const image = element("img", "", { alt: "", draggable: false });
  const over = element("div", "cell over", { hidden: true });
  const row = element("div", "row", { role: "row" });
  const cell = element("div", "cell chosen", { role: "gridcell", "aria-selected": "true" });
  const across = element("div", "names across", { "aria-hidden": "true" });
  const down = element("div", "names down", { "aria-hidden": "true" });
  row.append(cell);
  grid.append(image, across, down, over, row);
  const note = element("p", "muted note");
  box.append(grid, note);

  const at = (event) => {
    const { tops, lefts, cell, width, height } = view.data.atlas;
    const frame = image.getBoundingClientRect();
    const x = ((event.clientX - frame.left) / frame.width) * width;
    const y = ((event.clientY - frame.top) / frame.height) * height;
    const layer = tops.findIndex((top) => y >= top && y < top + cell);
    const head = lefts.findIndex((left) => x >= left && x < left + cell);
    return layer < 0 || head < 0 ? null : [layer, head];
  };
  const place = (mark, [layer, head]) => {
    const { tops, lefts, cell, width, height } = view.data.atlas;
    const share = [lefts[head] / width, tops[layer] / height, cell / width, cell / height];
    ["left", "top", "width", "height"].forEach((side, i) => (mark.style[side] = `${100 * share[i]}%`));
  };
  grid.addEventListener("pointermove", (event) => {
    const head = at(event);
    over.hidden = !head;
    grid.style.cursor = head ? "pointer" : "default";
    if (!head) return hideTip(view);
    place(over, head);
    showTip(view, [headName(head), view.data.labels?.[String(head)]].filter(Boolean).join(" · "), over.getBoundingClientRect());
  });
  grid.addEventListener("pointerleave", () => {
    over.hidden = true;
    hideTip(view);
  });
  grid.addEventListener("click", (event) => {
    const head = at(event);
    if (head) view.change({ head });
  });
  grid.addEventListener("keydown", (event) => {
    const { tops, lefts } = view.data.atlas;
    const [layer, head] = view.state.head ?? [0, 0];
    const next = {
      ArrowLeft: [layer, head - 1],
      ArrowRight: [layer, head + 1],
      ArrowUp: [layer - 1, head],
      ArrowDown: [layer + 1, head],
      Home: [layer, 0],
      End: [layer, lefts.length - 1],
    }[event.key];
    if (!next || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const chosen = [clamp(next[0], 0, tops.length - 1), clamp(next[1], 0, lefts.length - 1)];
    if (!same(chosen, view.state.head)) view.change({ head: chosen });
  });
  return {
    box,
    draw() {
      const { data, state } = view;
      box.hidden = !data.atlas;
      if (!data.atlas) return;
      const { src, width, height, tops, lefts, cell: size, caption } = data.atlas;
      if (image.getAttribute("src") !== src) image.src = src;
      image.width = width;
      image.height = height;
      box.style.maxWidth = `min(100%, ${width}px)`;
      write(note, caption);
      const scale = image.clientWidth / width || 1;
      across.hidden = down.hidden = scale > LEGIBLE;
      across.style.height = `calc(${(100 * tops[0]) / height}% + 8px)`;
      down.style.width = `calc(${(100 * lefts[0]) / width}% + 8px)`;
      names(across, "H", "left", lefts.map((left) => (left + size / 2) / width), width * scale);
      names(down, "L", "top", tops.map((top) => (top + size / 2) / height), height * scale);
      const shape = `${tops.length} layers, ${lefts.length} heads each`;
      set(grid, { "aria-label": `Heads: ${shape}. Arrow keys select.`, "aria-rowcount": tops.length, "aria-colcount": lefts.length });
      row.hidden = !state.head;
      if (!state.head) return;
      place(cell, state.head);
      const about = [headName(state.head), data.labels?.[String(state.head)]].filter(Boolean).join(", ");
      set(cell, { id: `${view.id}-cell`, "aria-label": about, "aria-rowindex": state.head[0] + 1, "aria-colindex": state.head[1] + 1 });
      set(grid, { "aria-activedescendant": `${view.id}-cell` });
    },
  };
}

// Labels of heads or layers over those of the image, which are illegible when it is scaled down.
function names(strip, letter, side, shares, pixels) {
  const step = STEPS.find((one) => shares.length <= one || (shares[one] - shares[0]) * pixels >= 24);
  const key = [step, ...shares].join();
  if (strip.dataset.key === key) return;
  strip.dataset.key = key;
  const some = shares.map((share, i) => [share, i]).filter(([, i]) => i % step === 0);
  strip.replaceChildren(...some.map(([share, i]) => {
    const name = element("span", "", {}, `${letter}${i}`);
    name.style[side] = `${100 * share}%`;
    return name;
  }));
}

function tile(view) {
  const box = element("section", "tile");
  const readout = element("p", "readout", { "aria-live": "polite" });
  const stage = element("div", "stage");
  const canvas = element("canvas", "weights", { tabindex: 0, role: "img" });
  const band = element("div", "band", { hidden: true });
  const holder = element("div", "holder");
  holder.append(canvas, band);
  const side = element("aside", "side");
  const legend = element("div", "legend");
  const bar = element("div", "bar");
  const ticks = element("div", "ticks");
  const gammas = buttons(GAMMAS, (gamma) => {
    view.colours = colours(view.data.palette, gamma);
    view.change({ gamma });
  });
  const small = element("canvas", "overview", { role: "img", "aria-label": "Overview of the whole text; the frame marks the visible window" });
  const range = element("p", "range");
  const reset = element("button", "reset", { type: "button" }, "Whole text");
  const hint = element("p", "hint", {}, "Drag or Ctrl + wheel to zoom, double-click for the whole text.");
  const contrast = element("div", "contrast");
  contrast.append(element("span", "muted", { title: "Colour of a weight w: w^γ" }, "γ"), gammas.box);
  const grey = element("span", "grey muted", {}, "masked");
  legend.append(element("span", "muted", {}, "weight"), bar, ticks, grey);
  side.append(legend, contrast, small, range, reset, hint);
  stage.append(holder, side);
  box.append(readout, stage);

  let geometry = null; // positions of the cells, see layout()
  let image = null; // the coloured cells of the layout, one pixel each
  let drag = null;

  const zoom = (window) => {
    const { length } = view.data.tokens;
    const [q0, q1] = span(window[0], window[1], length);
    const [k0, k1] = span(window[2], window[3], length);
    if (same([q0, q1, k0, k1], view.state.window)) return;
    view.change({ window: [q0, q1, k0, k1], cursor: null });
  };
  const at = (event) => {
    if (!geometry) return null;
    const frame = canvas.getBoundingClientRect();
    const row = Math.floor((event.clientY - frame.top - geometry.top) / geometry.high);
    const column = Math.floor((event.clientX - frame.left - geometry.left) / geometry.wide);
    return { row, column, inside: row >= 0 && row < geometry.rows && column >= 0 && column < geometry.columns };
  };
  const query = (row) => geometry.window[0] + edge(row, geometry.queries, geometry.rows);
  const key = (column) => geometry.window[2] + edge(column, geometry.keys, geometry.columns);
  const beside = ({ row, column }) => {
    if (column < 0 && row >= 0 && row < geometry.rows) return query(row);
    if (row < 0 && column >= 0 && column < geometry.columns) return key(column);
    return null;
  };

  canvas.addEventListener("pointerdown", (event) => {
    const start = at(event);
    if (!start?.inside || event.button) return;
    canvas.setPointerCapture(event.pointerId);
    drag = { start, end: start };
  });
  canvas.addEventListener("pointermove", (event) => {
    const here = at(event);
    if (!here) return;
    if (drag) {
      drag.end = { row: clamp(here.row, 0, geometry.rows - 1), column: clamp(here.column, 0, geometry.columns - 1) };
      const [r0, r1, c0, c1] = rectangle(drag);
      band.hidden = r1 - r0 + c1 - c0 < 3;
      const sides = [geometry.left + c0 * geometry.wide, geometry.top + r0 * geometry.high, (c1 - c0) * geometry.wide, (r1 - r0) * geometry.high];
      ["left", "top", "width", "height"].forEach((name, i) => (band.style[name] = `${sides[i]}px`));
    }
    view.change({ cursor: here.inside ? { query: query(here.row), key: key(here.column) } : null });
    const token = beside(here);
    if (token === null) return hideTip(view);
    const [x, y] = [event.clientX, event.clientY];
    showTip(view, `${token}  ${visible(view.data.tokens[token], Infinity)}`, { left: x, right: x, top: y, bottom: y });
  });
  canvas.addEventListener("pointercancel", () => {
    drag = null;
    band.hidden = true;
  });
  canvas.addEventListener("pointerup", () => {
    if (drag && !band.hidden) {
      const [r0, r1, c0, c1] = rectangle(drag);
      zoom([query(r0), query(r1), key(c0), key(c1)]);
    }
    drag = null;
    band.hidden = true;
  });
  canvas.addEventListener("pointerleave", () => {
    if (!drag) view.change({ cursor: null });
    hideTip(view);
  });
  canvas.addEventListener("dblclick", () => zoom(whole(view.data)));
  canvas.addEventListener("wheel", (event) => {
    const here = at(event);
    if (!here?.inside || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    zoom(scaled(view.state.window, event.deltaY < 0 ? 0.7 : 1 / 0.7, query(here.row), key(here.column)));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    if (!geometry || event.ctrlKey || event.metaKey || event.altKey) return;
    const [q0, q1, k0, k1] = view.state.window;
    const here = view.state.cursor ?? { query: q0, key: k0 };
    const step = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] }[event.key];
    if (step && !view.state.cursor) view.change({ cursor: here });
    else if (step) {
      const [down, across] = [(q1 - q0) / geometry.rows, (k1 - k0) / geometry.columns].map(Math.ceil);
      const moved = { query: clamp(here.query + step[0] * down, q0, q1 - 1), key: clamp(here.key + step[1] * across, k0, k1 - 1) };
      view.change({ cursor: moved });
    } else if (event.key === "+" || event.key === "=") zoom(scaled(view.state.window, 0.7, here.query, here.key));
    else if (event.key === "-") zoom(scaled(view.state.window, 1 / 0.7, here.query, here.key));
    else if (event.key === "0" || event.key === "Escape") zoom(whole(view.data));
    else return;
    event.preventDefault();
  });
  reset.addEventListener("click", () => zoom(whole(view.data)));
  const pan = (event) => {
    if (!(event.buttons & 1)) return;
    const frame = small.getBoundingClientRect();
    const { length } = view.data.tokens;
    const [q0, q1, k0, k1] = view.state.window;
    const first = Math.round(((event.clientY - frame.top) / frame.height) * length - (q1 - q0) / 2);
    const left = Math.round(((event.clientX - frame.left) / frame.width) * length - (k1 - k0) / 2);
    zoom([first, first + q1 - q0, left, left + k1 - k0]);
  };
  small.addEventListener("pointerdown", (event) => {
    small.setPointerCapture(event.pointerId);
    pan(event);
  });
  small.addEventListener("pointermove", pan);

  function layout(pen) {
    const { tokens } = view.data;
    const { window } = view.state;
    const space = stage.clientWidth;
    if (geometry?.tokens === tokens && geometry.space === space && same(geometry.window, window)) return geometry;
    const widest = (first, end) => {
      const some = tokens.slice(first, end).map((token) => pen.measureText(visible(token, 16)).width);
      return Math.ceil(Math.max(...some) + pen.measureText(String(end)).width) + 20;
    };
    const corner = Math.max(...TITLES.map((title) => pen.measureText(title).width)) + 10;
    const [left, top] = [Math.max(widest(window[0], window[1]), Math.ceil(corner)), widest(window[2], window[3])];
    const room = Math.max(space - (space > BESIDE ? 172 : 0) - left - 4, 120);
    const [queries, keys] = [window[1] - window[0], window[3] - window[2]];
    const bin = Math.max(queries / TALL, keys / room, 1); // positions per cell, the same down and across
    const [rows, columns] = [queries, keys].map((n) => Math.max(Math.floor(n / bin), 1));
    const wide = clamp(Math.floor(room / columns), 1, CELL);
    const high = clamp(Math.floor(TALL / rows), 1, CELL);
    const square = Math.min(wide, high);
    const side = Math.min(rows, columns) < FEW ? Math.max(square, LABEL + 2) : square;
    const cells = { rows, columns, wide: Math.min(wide, side), high: Math.min(high, side) };
    return { tokens, space, window, queries, keys, left, top, ...cells };
  }

  function draw() {
    const { data, state } = view;
    box.hidden = !data.tokens || !view.data.tiles;
    if (box.hidden) return;
    const stale = view.drawn !== String(state.head);
    box.classList.toggle("stale", stale && Boolean(view.drawn));
    gammas.draw(state.gamma);
    drawLegend();
    if (!view.tiles.length) {
      canvas.hidden = small.hidden = reset.hidden = true;
      write(readout, view.drawn === null ? `${headName(state.head)} is not included in this view.` : " ");
      write(range, "");
      geometry = null;
      return;
    }
    canvas.hidden = false;
    const theme = inks(box);
    const pen = canvas.getContext("2d");
    pen.font = theme.small;
    geometry = layout(pen);
    const size = [geometry.left + geometry.columns * geometry.wide + 1, geometry.top + geometry.rows * geometry.high + 1];
    fit(canvas, size);
    canvas.dataset.cells = [geometry.rows, geometry.columns, geometry.high, geometry.wide].join(" ");
    pen.font = theme.small;
    const source = best(view.tiles, geometry.window);
    const wanted = [view.version, geometry.window, geometry.rows, geometry.columns, state.gamma, data.dark, data.causal].join();
    if (image?.name !== wanted) image = { name: wanted, ...paint(source, geometry.window, geometry.rows, geometry.columns, view) };
    pen.fillStyle = theme.future;
    pen.fillRect(geometry.left, geometry.top, geometry.columns * geometry.wide, geometry.rows * geometry.high);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(image.canvas, geometry.left, geometry.top, geometry.columns * geometry.wide, geometry.rows * geometry.high);
    if (Math.min(geometry.wide, geometry.high) > 8) grid(pen, theme.paper);
    labels(pen, theme);
    marks(pen, theme);
    write(readout, cursorText());
    const [q0, q1, k0, k1] = geometry.window;
    const place = `queries ${q0} to ${q1 - 1} down, keys ${k0} to ${k1 - 1} across`;
    set(canvas, { "aria-label": `Attention of ${headName(state.head)}: ${place}. Arrow keys move the cursor, + and - zoom.` });
    overview(theme);
  }

  function grid(pen, colour) {
    pen.fillStyle = colour;
    for (let i = 1; i < geometry.columns; i += 1) pen.fillRect(geometry.left + i * geometry.wide - 1, geometry.top, 1, geometry.rows * geometry.high);
    for (let i = 1; i < geometry.rows; i += 1) pen.fillRect(geometry.left, geometry.top + i * geometry.high - 1, geometry.columns * geometry.wide, 1);
  }

  function labels(pen, theme) {
    const { tokens } = view.data;
    const { cursor: here, focus, pinned } = view.state;
    const one = (position, align, place, strong) => {
      pen.textAlign = align;
      pen.fillStyle = strong ? theme.ink : theme.muted;
      pen.fillText(String(position), place[0], 0);
      pen.font = strong ? theme.strong : theme.small;
      pen.fillStyle = theme.ink;
      pen.fillText(visible(tokens[position], 16), place[1], 0);
      pen.font = theme.small;
    };
    pen.textBaseline = "middle";
    const [q0, q1, k0, k1] = geometry.window;
    const digits = pen.measureText(String(Math.max(q1, k1))).width;
    const special = [pinned ?? focus];
    for (const [position, row] of thinned(q0, q1, geometry.rows, geometry.high, [...special, here?.query])) {
      pen.save();
      pen.translate(geometry.left, geometry.top + (row + 0.5) * geometry.high);
      one(position, "right", [-6, -13 - digits], position === here?.query);
      pen.restore();
    }
    for (const [position, column] of thinned(k0, k1, geometry.columns, geometry.wide, [...special, here?.key])) {
      pen.save();
      pen.translate(geometry.left + (column + 0.5) * geometry.wide, geometry.top);
      pen.rotate(-Math.PI / 2);
      one(position, "left", [6, 13 + digits], position === here?.key);
      pen.restore();
    }
    pen.textAlign = "right";
    pen.fillStyle = theme.muted;
    TITLES.forEach((title, i) => pen.fillText(title, geometry.left - 8, geometry.top - 24 + 15 * i));
    pen.fillStyle = theme.line;
    pen.fillRect(Math.round(geometry.left - 6 - digits - 4), geometry.top, 1, geometry.rows * geometry.high);
    pen.fillRect(geometry.left, Math.round(geometry.top - 6 - digits - 4), geometry.columns * geometry.wide, 1);
  }

  function marks(pen, theme) {
    const { cursor: here, focus, pinned, direction } = view.state;
    const [q0, q1, k0, k1] = geometry.window;
    const row = (query) => Math.floor(((query - q0) * geometry.rows) / geometry.queries);
    const column = (key) => Math.floor(((key - k0) * geometry.columns) / geometry.keys);
    const frame = (x, y, w, h, colour) => {
      pen.strokeStyle = colour;
      pen.lineWidth = 1.5;
      pen.strokeRect(geometry.left + x * geometry.wide - 0.5, geometry.top + y * geometry.high - 0.5, w * geometry.wide, h * geometry.high);
    };
    const token = pinned ?? focus;
    if (token !== null && direction !== "by" && token >= q0 && token < q1) frame(0, row(token), geometry.columns, 1, theme.to);
    if (token !== null && direction !== "to" && token >= k0 && token < k1) frame(column(token), 0, 1, geometry.rows, theme.by);
    if (!here || here.query < q0 || here.query >= q1 || here.key < k0 || here.key >= k1) return;
    pen.fillStyle = theme.cross;
    pen.fillRect(geometry.left, geometry.top + row(here.query) * geometry.high, geometry.columns * geometry.wide, geometry.high);
    pen.fillRect(geometry.left + column(here.key) * geometry.wide, geometry.top, geometry.wide, geometry.rows * geometry.high);
    frame(column(here.key), row(here.query), 1, 1, theme.ink);
  }

  function cursorText() {
    const { cursor: here } = view.state;
    if (!here) return " ";
    const { tokens, top, causal } = view.data;
    const name = (i) => `‘${visible(tokens[i], 24)}’ ${i}`;
    const row = Math.floor(((here.query - geometry.window[0]) * geometry.rows) / geometry.queries);
    const column = Math.floor(((here.key - geometry.window[2]) * geometry.columns) / geometry.keys);
    const value = image.values[row * geometry.columns + column];
    const pair = `${name(here.query)} → ${name(here.key)}`;
    if (causal && value === FUTURE) return `${pair}: masked (key after the query)`;
    if (value < 0) return `${pair}: loading`;
    const [down, across] = [geometry.queries / geometry.rows, geometry.keys / geometry.columns].map(Math.ceil);
    if (image.exact && down * across === 1) return `${pair}: ${number(value, top)}`;
    return `${pair}: at most ${number(value, top)} ${image.exact ? `among ${down} × ${across} tokens` : "in this area"}`;
  }

  function overview(theme) {
    const { length } = view.data.tokens;
    const window = geometry.window;
    const all = same(window, whole(view.data));
    const source = best(view.tiles, whole(view.data));
    small.hidden = all || !source || !covers(source, whole(view.data));
    reset.hidden = all;
    const part = `queries ${window[0]}–${window[1] - 1}\nkeys ${window[2]}–${window[3] - 1}\nof ${length.toLocaleString("en")} tokens`;
    write(range, all ? `all ${length.toLocaleString("en")} tokens` : part);
    if (small.hidden) return;
    const size = Math.min(SMALL, length);
    const name = [view.version, size, view.state.gamma, view.data.dark].join();
    if (small.dataset.name !== name || !small.image) {
      small.image = paint(source, whole(view.data), size, size, view);
      small.dataset.name = name;
    }
    fit(small, [SMALL, SMALL]);
    const pen = small.getContext("2d");
    pen.fillStyle = theme.future;
    pen.fillRect(0, 0, SMALL, SMALL);
    pen.imageSmoothingEnabled = false;
    pen.drawImage(small.image.canvas, 0, 0, SMALL, SMALL);
    pen.strokeStyle = theme.mark;
    pen.lineWidth = 2;
    const share = SMALL / length;
    const [wide, high] = [window[3] - window[2], window[1] - window[0]].map((size) => Math.max(size * share, 3));
    pen.strokeRect(window[2] * share, window[0] * share, wide, high);
  }

  function drawLegend() {
    const { data, state } = view;
    grey.hidden = !data.causal;
    bar.style.background = `linear-gradient(to right, ${data.palette.join(", ")})`;
    const marksAt = [0, 0.1, 0.5, 1].filter((share) => share === 0 || share === 1 || Math.abs(share ** state.gamma - 0.5) < 0.36);
    ticks.replaceChildren(...marksAt.map((share) => {
      const tick = element("span", "", {}, plain(share * (data.top ?? 1)));
      tick.style.left = `${100 * share ** state.gamma}%`;
      return tick;
    }));
  }

  return { box, draw };
}

function text(view) {
  const box = element("section", "text");
  const bar = element("div", "bar-of-text");
  const directions = buttons(DIRECTIONS, (direction) => view.change({ direction }));
  const readout = element("bdi", "who");
  const lists = element("div", "lists", { "aria-live": "polite" });
  bar.append(directions.box, readout);
  const keys = "Arrow keys move from token to token, Enter pins, T switches the direction.";
  const words = element("div", "words", { tabindex: 0, role: "group", "aria-label": `Text. ${keys}` });
  box.append(bar, words, lists);
  let built = "";
  let spans = new Map();

  const of = (event) => {
    const index = event.target.closest?.(".token")?.dataset.index;
    return index === undefined ? null : Number(index);
  };
  words.addEventListener("pointerover", (event) => {
    const focus = of(event);
    if (focus !== view.state.focus) view.change({ focus });
    const span = spans.get(focus);
    if (span?.classList.contains("cut")) showTip(view, visible(view.data.tokens[focus], Infinity), span.getBoundingClientRect());
    else hideTip(view);
  });
  words.addEventListener("pointerleave", () => {
    view.change({ focus: null });
    hideTip(view);
  });
  words.addEventListener("click", (event) => {
    const token = of(event);
    view.change({ pinned: token === view.state.pinned ? null : token });
  });
  words.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const shown = [...spans.keys()];
    const names = DIRECTIONS.map(([name]) => name);
    const { focus, pinned, direction } = view.state;
    const here = shown.indexOf(focus ?? pinned ?? -1);
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (step) {
      const next = shown[here < 0 ? 0 : clamp(here + step, 0, shown.length - 1)];
      view.change({ focus: next, pinned: null });
      spans.get(next).scrollIntoView({ block: "nearest" });
    } else if (event.key === "Enter" || event.key === " ") view.change({ pinned: focus === pinned ? null : focus });
    else if (event.key.toLowerCase() === "t") view.change({ direction: names[(names.indexOf(direction) + 1) % names.length] });
    else if (event.key === "Escape") view.change({ pinned: null, focus: null });
    else return;
    event.preventDefault();
  });

  function build() {
    const { tokens } = view.data;
    const ranges = readable(view.state.window, tokens.length);
    const name = JSON.stringify(ranges);
    if (name === built && spans.tokens === tokens) return;
    if (name === built && same(spans.tokens, tokens)) return;
    built = name;
    spans = new Map();
    spans.tokens = tokens;
    const parts = [];
    let before = 0;
    const gap = (n) => n > 0 && parts.push(element("span", "gap", {}, ` … ${n.toLocaleString("en")} tokens … `));
    for (const [first, end] of ranges) {
      gap(first - before);
      for (let i = first; i < end; i += 1) {
        const shown = visible(tokens[i], 40);
        const span = element("bdi", shown.endsWith("…") ? "token cut" : "token", {}, shown);
        span.dataset.index = i;
        spans.set(i, span);
        parts.push(span);
        if (tokens[i].endsWith("\n")) parts.push(element("br"));
      }
      before = end;
    }
    gap(tokens.length - before);
    words.replaceChildren(...parts);
  }

  function draw() {
    const { data, state } = view;
    box.hidden = !data.tokens || !data.tiles || data.text === false;
    if (box.hidden) return;
    build();
    directions.draw(state.direction);
    const token = state.pinned ?? state.focus;
    const ready = token !== null && view.tiles.length > 0;
    const [to, by] = [[], []];
    let known = false;
    for (const [i, span] of spans) {
      const forward = ready && state.direction !== "by" ? weight(view.tiles, token, i) : ABSENT;
      const backward = ready && state.direction !== "to" ? weight(view.tiles, i, token) : ABSENT;
      known ||= Math.max(forward, backward) >= 0;
      if (forward > 1) to.push([forward, i]);
      if (backward > 1) by.push([backward, i]);
      const share = (Math.max(forward, backward, 0) / 255) ** state.gamma;
      const colour = forward >= backward ? "to" : "by";
      span.style.backgroundColor = share ? `color-mix(in srgb, var(--${colour}) ${(100 * share).toFixed(1)}%, transparent)` : "";
      span.classList.toggle("deep", share > 0.55);
      span.classList.toggle("own", i === token);
      span.classList.toggle("pinned", i === state.pinned);
    }
    const coarse = view.tiles.length ? "Zoom in for the weights of single tokens." : " ";
    const advice = token === null ? "Hover over a token; click to pin it." : known ? "" : coarse;
    write(readout, advice || `‘${visible(data.tokens[token], 24)}’ ${token}`);
    readout.classList.toggle("muted", Boolean(advice));
    const shown = [];
    if (!advice && state.direction !== "by") shown.push(largest(to, "attends to", "to"));
    if (!advice && state.direction !== "to") shown.push(largest(by, "attended by", "by"));
    lists.replaceChildren(...shown);
  }

  function largest(found, verb, colour) {
    const { tokens, top } = view.data;
    const most = found.sort((a, b) => b[0] - a[0]).slice(0, 4);
    const one = ([value, i]) => element("bdi", "", {}, `${visible(tokens[i], 12)} ${i}: ${number(value, top)}`);
    const row = element("p", `list ${colour}`);
    row.append(element("b", "", {}, verb), ...(most.length ? most.map(one) : ["–"]));
    return row;
  }

  return { box, draw };
}

// ---------------------------------------------------------------- weights

const FUTURE = -1;
const ABSENT = -2;
const COARSE = -3;

async function decode(packed) {
  const bytes = Uint8Array.from(atob(packed.weights), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return { window: packed.window, shape: packed.shape, values: new Uint8Array(await new Response(stream).arrayBuffer()) };
}

const covers = ({ window: [q0, q1, k0, k1] }, [a, b, c, d]) => q0 <= a && b <= q1 && k0 <= c && d <= k1;
const density = ({ window: [q0, q1, k0, k1], shape: [rows, columns] }) => (rows * columns) / ((q1 - q0) * (k1 - k0));
const finest = (tiles) => tiles.reduce((one, other) => (one && density(one) >= density(other) ? one : other), null);
const best = (tiles, window) => finest(tiles.filter((one) => covers(one, window))) ?? tiles[0];

function weight(tiles, query, key) {
  const one = finest(tiles.filter((tile) => covers(tile, [query, query + 1, key, key + 1])));
  if (!one) return ABSENT;
  if (density(one) < 1) return COARSE;
  const [q0, , k0] = one.window;
  return one.values[(query - q0) * one.shape[1] + key - k0];
}

// First position of bin i when n positions are divided into `bins` bins: position p is in bin floor(p * bins / n).
const edge = (i, n, bins) => Math.ceil((i * n) / bins);

// Largest weight of each bin of the window, and its image; bins whose keys are all masked stay transparent.
function paint(tile, window, rows, columns, view) {
  const values = new Int16Array(rows * columns);
  const image = new ImageData(columns, rows);
  const [q0, q1, k0, k1] = window;
  const [down, across] = [sources(tile, 0, q0, q1, rows), sources(tile, 2, k0, k1, columns)];
  for (let r = 0; r < rows; r += 1) {
    const lastQuery = q0 + edge(r + 1, q1 - q0, rows) - 1;
    for (let c = 0; c < columns; c += 1) {
      let most = ABSENT;
      if (view.data.causal && k0 + edge(c, k1 - k0, columns) > lastQuery) most = FUTURE;
      else {
        for (let i = down[r][0]; i <= down[r][1]; i += 1) {
          for (let j = across[c][0]; j <= across[c][1]; j += 1) most = Math.max(most, tile.values[i * tile.shape[1] + j]);
        }
      }
      values[r * columns + c] = most;
      if (most >= 0) image.data.set(view.colours[most], 4 * (r * columns + c));
    }
  }
  const canvas = element("canvas");
  canvas.width = columns;
  canvas.height = rows;
  canvas.getContext("2d").putImageData(image, 0, 0);
  return { canvas, values, exact: density(tile) >= 1 };
}

// First and last row (side 0) or column (side 2) of the tile for each bin of [start, end); an empty range outside the tile.
function sources(tile, side, start, end, bins) {
  const [first, last] = [tile.window[side], tile.window[side + 1]];
  const lines = tile.shape[side / 2];
  const line = (position) => Math.floor(((position - first) * lines) / (last - first));
  return Array.from({ length: bins }, (_, i) => {
    const [from, to] = [start + edge(i, end - start, bins), start + edge(i + 1, end - start, bins) - 1];
    return from > last - 1 || to < first ? [0, -1] : [line(Math.max(from, first)), line(Math.min(to, last - 1))];
  });
}

function colours(palette, gamma) {
  const stops = palette.map((hex) => [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  return Array.from({ length: 256 }, (_, value) => {
    const place = (value / 255) ** gamma * (stops.length - 1);
    const low = Math.min(Math.floor(place), stops.length - 2);
    return [...stops[low].map((part, i) => Math.round(part + (stops[low + 1][i] - part) * (place - low))), 255];
  });
}

// ---------------------------------------------------------------- windows

const whole = ({ tokens }) => (tokens ? [0, tokens.length, 0, tokens.length] : null);

function span(start, end, length) {
  const size = clamp(Math.round(end - start), 1, length);
  const first = clamp(Math.round(start), 0, length - size);
  return [first, first + size];
}

function scaled([q0, q1, k0, k1], factor, query, key) {
  const one = (start, end, at) => {
    const size = factor < 1 ? Math.max(Math.floor((end - start) * factor), 4) : Math.ceil((end - start) * factor);
    const first = at - ((at - start) / (end - start)) * size;
    return [first, first + size];
  };
  return [...one(q0, q1, query), ...one(k0, k1, key)];
}

function rectangle({ start, end }) {
  const [rows, columns] = [[start.row, end.row], [start.column, end.column]];
  return [Math.min(...rows), Math.max(...rows) + 1, Math.min(...columns), Math.max(...columns) + 1];
}

// The ranges of text around the window's queries and keys, limited to READABLE tokens.
function readable([q0, q1, k0, k1], length) {
  const around = ([a, b]) => [Math.max(a - NEIGHBOURS, 0), Math.min(b + NEIGHBOURS, length)];
  const ends = [[k0, k1], [q0, q1]].map(around).sort((a, b) => a[0] - b[0]);
  const joined = ends[1][0] <= ends[0][1] ? [[ends[0][0], Math.max(ends[0][1], ends[1][1])]] : ends;
  let left = READABLE;
  return joined.map(([a, b], i) => {
    const end = Math.min(b, a + Math.max(Math.floor(left / (joined.length - i)), 1));
    left -= end - a;
    return [a, end];
  });
}

// Positions to label (round numbers if there is no room for all), with their row or column.
function thinned(first, end, lines, size, special) {
  const perLine = (end - first) / lines;
  const step = STEPS.find((one) => (one / perLine) * size >= LABEL) ?? 2000;
  const line = (position) => Math.floor(((position - first) * lines) / (end - first));
  const chosen = special.filter((position) => Number.isInteger(position) && position >= first && position < end);
  const clear = (position) => chosen.every((other) => Math.abs(line(position) - line(other)) * size >= LABEL || position === other);
  const found = new Set(chosen.slice(-1));
  for (let i = Math.ceil(first / step) * step; i < end; i += step) if (clear(i)) found.add(i);
  return [...found].map((position) => [position, line(position)]);
}

// ---------------------------------------------------------------- words and elements

const clamp = (value, low, high) => Math.max(low, Math.min(value, high));
const same = (a, b) => a === b || JSON.stringify(a) === JSON.stringify(b);
const headName = (head) => String(head).replace(/^(\d+),(\d+)$/, "L$1H$2");
const plain = (value) => String(Number(value.toPrecision(2)));

// Weights are stored in 255 steps: below one hundredth of the scale only an upper bound is shown.
function number(value, top = 1) {
  if (value > 0 && value < 2.55) return `< ${plain(top / 100)}`;
  return top === 1 ? (value / 255).toFixed(2) : String(Number(((value / 255) * top).toPrecision(2)));
}

// A token as a label: white space as symbols, unprintable characters as a box, an empty token as ∅.
function visible(token, longest) {
  const letters = Array.from(token.length > 8 * longest ? token.slice(0, 8 * longest) : token);
  const shown = letters.map((letter) => SYMBOLS[letter] ?? (/[\p{C}\p{Z}]/u.test(letter) ? "\ufffd" : letter));
  if (!shown.length) return "∅";
  return shown.length > longest ? `${shown.slice(0, longest - 1).join("")}…` : shown.join("");
}

function element(tag, name = "", attributes = {}, content = "") {
  const node = document.createElement(tag);
  if (name) node.className = name;
  set(node, attributes);
  if (content) node.textContent = content;
  return node;
}

function set(node, attributes) {
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "hidden") node.hidden = value;
    else if (node.getAttribute(key) !== String(value)) node.setAttribute(key, value);
  }
}

function write(place, content) {
  if (place.textContent !== content) place.textContent = content;
}

function buttons(choices, choose) {
  const box = element("span", "buttons", { role: "group" });
  const node = choices.map(([value, label]) => {
    const button = element("button", "", { type: "button" }, label);
    button.addEventListener("click", () => choose(value));
    box.append(button);
    return [value, button];
  });
  return { box, draw: (chosen) => node.forEach(([value, button]) => set(button, { "aria-pressed": value === chosen })) };
}

function showTip(view, content, near) {
  write(view.tip, content);
  view.tip.hidden = false;
  const frame = view.box.getBoundingClientRect();
  const own = view.tip.getBoundingClientRect();
  const x = clamp((near.left + near.right) / 2 - own.width / 2 - frame.left, 0, Math.max(frame.width - own.width, 0));
  const above = near.top - frame.top - own.height - 6;
  view.tip.style.left = `${x}px`;
  view.tip.style.top = `${above >= 0 ? above : near.bottom - frame.top + 6}px`;
}

function hideTip(view) {
  view.tip.hidden = true;
}

function fit(canvas, [width, height]) {
  const ratio = window.devicePixelRatio || 1;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  canvas.style.width = `${width}px`;
  canvas.style.height = `${height}px`;
  canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
}

// Colours and fonts of the style sheet, for the canvas.
function inks(box) {
  const probe = element("i");
  box.append(probe);
  const theme = {};
  for (const name of ["paper", "ink", "muted", "line", "future", "to", "by", "mark", "cross"]) {
    probe.style.color = `var(--${name})`;
    theme[name] = getComputedStyle(probe).color;
  }
  probe.className = "mono";
  const { fontFamily } = getComputedStyle(probe);
  probe.remove();
  return { ...theme, small: `11px ${fontFamily}`, strong: `600 11px ${fontFamily}` };
}
