"use strict";
// The recording, drawn: from left to right the number of events that had happened.

const LANES = [
  ["steps", 26], ["windows", 22], ["stores", 16], ["flushes", 16], ["fences", 16], ["device", 16], ["promises", 24], ["crash points", 34],
];
const AXIS = 20, GAP = 4, LABELS = 92;

/** Runs of events of one kind: [lane, user mode, first, number behind the last]. */
function runsOf(activity) {
  const lanes = { s: 2, n: 2, f: 3, d: 4, o: 4, h: 5, q: 5, a: 5 };
  const runs = [];
  let at = 0;
  for (const [, letter, length] of activity.matchAll(/([A-Za-z])(\d+)/g)) {
    const kind = letter.toLowerCase();
    if (kind in lanes) runs.push({ lane: lanes[kind], kind, user: kind !== letter, begin: at, end: at + Number(length) });
    at += Number(length);
  }
  return runs;
}

/** How many numbers events have: more than there are events where some were taken out on purpose. */
function eventsOf(report) {
  const activity = report.timeline ? report.timeline.activity : "";
  return [...activity.matchAll(/\d+/g)].reduce((sum, [length]) => sum + Number(length), 0) || report.counts.events;
}

/**
 * The places of events on the axis: where they stand evenly, their numbers; where long runs of one kind are squeezed, less.
 * `to` gives the place of a number of events, `from` the number of a place.
 */
function axisOf(report, squeezed) {
  const total = Math.max(1, eventsOf(report) + 1), corners = [[0, 0]];
  const widthOf = length => (length <= 32 ? length : 32 + 16 * Math.log2(length / 32));
  let events = 0, place = 0;
  if (squeezed) {
    for (const [, , length] of report.timeline.activity.matchAll(/([A-Za-z])(\d+)/g)) {
      corners.push([events += Number(length), place += widthOf(Number(length))]);
    }
  }
  corners.push([total, place + total - events]);
  const across = (at, given, wanted) => {
    let low = 0, high = corners.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (corners[middle][given] <= at) low = middle; else high = middle;
    }
    const [one, other] = [corners[low], corners[high]];
    return one[wanted] + (at - one[given]) * (other[wanted] - one[wanted]) / Math.max(1e-9, other[given] - one[given]);
  };
  return { to: events => across(events, 0, 1), from: place => across(place, 1, 0), total: corners.at(-1)[1] };
}

const KINDS = {
  s: "stores", n: "non-temporal stores", f: "flushes", d: "SFENCE or MFENCE", o: "other drains", h: "writes to flush hints",
  q: "device flush requested", a: "device flush answered",
};

/** What can be looked at, in the order of its lanes and places. */
function itemsOf(report, findings) {
  const timeline = report.timeline || { activity: "", steps: [], faults: [], promises: [] };
  const broken = new Set(findings.filter(it => it.promise).map(it => `${it.promise.line} ${it.promise.event}`));
  const items = timeline.steps.map(it => ({ ...it, lane: 0, title: `line ${it.line}: ${it.text}` }));
  timeline.faults.forEach((fault, number) => fault.windows.forEach(it =>
    items.push({ ...it, lane: 1, end: it.end + 1, title: `fault ${number} ${it.name}` })));
  for (const run of runsOf(timeline.activity)) {
    items.push({ ...run, title: `${some(run.end - run.begin, "event")}: ${KINDS[run.kind]} by ${run.user ? "user mode" : "the kernel"}` });
  }
  for (const it of timeline.promises) {
    const isBroken = broken.has(`${it.line} ${it.event}`);
    items.push({ lane: 6, begin: it.event + 1, end: it.event + 1, broken: isBroken, line: it.line,
      title: `${isBroken ? "broken promise" : "promise"}: ${it.text} (line ${it.line})` });
  }
  for (const point of report.points) {
    const how = point.found.some(name => VIOLATIONS.has(name)) ? "bad" : point.found.length ? "warn" : "good";
    items.push({ lane: 7, begin: point.events, end: point.events, point, how, title: `crash point behind ${some(point.events, "event")}` });
  }
  return items;
}

function timelineSection(report, findings, openFinding) {
  const items = itemsOf(report, findings);
  const lanes = LANES.map((_, lane) => items.filter(item => item.lane === lane));
  // What shows something is drawn over what does not.
  const worst = item => (item.how === "bad" || item.broken ? 2 : item.how === "warn" ? 1 : 0);
  const drawn = lanes.map(lane => [...lane].sort((one, other) => worst(one) - worst(other)));
  const shownLanes = LANES.map((lane, index) => ({ name: lane[0], height: lane[1], index })).filter(it => lanes[it.index].length);
  const canSqueeze = Boolean(report.timeline && report.timeline.activity);
  let axis = axisOf(report, canSqueeze && eventsOf(report) > 2000);
  const view = { from: 0, to: axis.total };
  let selected = null;
  const height = shownLanes.reduce((sum, lane) => sum + lane.height + GAP, AXIS + GAP);
  const canvas = el("canvas", { tabindex: 0, role: "application",
    "aria-label": "Timeline of the recording. Arrow keys go from one thing to the next, and from lane to lane; plus and minus zoom; Enter opens the finding." });
  const detail = el("div", { class: "detail", "aria-live": "polite" },
    el("span", { class: "dim" }, "Choose something above: click it, or go there with the arrow keys."));
  const scale = () => (canvas.clientWidth - LABELS - 14) / (view.to - view.from);
  const xOf = events => LABELS + (axis.to(events) - view.from) * scale();

  function place(from, width) {
    const size = Math.max(4, Math.min(axis.total, width));
    view.from = Math.max(0, Math.min(axis.total - size, from));
    view.to = view.from + size;
    draw();
  }
  function zoom(factor, around) {
    const middle = around === undefined ? (selected ? axis.to(selected.begin) : (view.from + view.to) / 2) : around;
    const width = (view.to - view.from) * factor;
    place(middle - (middle - view.from) * factor, width);
  }
  function draw() {
    const ratio = devicePixelRatio || 1, width = canvas.clientWidth;
    canvas.width = Math.max(1, width * ratio);
    canvas.height = height * ratio;
    const style = getComputedStyle(document.documentElement);
    const colour = name => style.getPropertyValue("--" + name).trim();
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.font = "12px system-ui, 'DejaVu Sans', sans-serif";
    pen.textBaseline = "middle";
    let y = GAP;
    for (const lane of shownLanes) {
      pen.fillStyle = colour("soft");
      pen.fillRect(LABELS, y, width - LABELS, lane.height);
      pen.fillStyle = colour("dim");
      pen.textAlign = "right";
      pen.fillText(lane.name, LABELS - 8, y + lane.height / 2);
      pen.textAlign = "left";
      pen.save();
      pen.beginPath();
      pen.rect(LABELS, y, width - LABELS, lane.height);
      pen.clip();
      lane.top = y;
      drawn[lane.index].forEach(item => drawItem(pen, colour, lane, item, width));
      pen.restore();
      y += lane.height + GAP;
    }
    drawAxis(pen, colour, y, width);
    if (selected) {
      pen.fillStyle = colour("focus");
      pen.fillRect(xOf(selected.begin) - 0.75, 0, 1.5, y);
    }
  }
  function drawItem(pen, colour, lane, item, width) {
    const x = xOf(item.begin), end = xOf(item.end);
    if (end < LABELS - 8 || x > width + 8) return;
    const wide = Math.max(1, end - x), middle = lane.top + lane.height / 2;
    if (lane.index <= 1) {
      pen.fillStyle = lane.index === 0 ? colour("step") : colour(item.name.toLowerCase());
      pen.fillRect(x, lane.top + 1, Math.max(1, wide - 1), lane.height - 2);
      const left = Math.max(x, LABELS) + 4, text = lane.index === 0 ? item.text : item.name;
      if (end - left > 18) {
        pen.save();
        pen.beginPath();
        pen.rect(left, lane.top, end - left - 3, lane.height);
        pen.clip();
        pen.fillStyle = colour("ink");
        pen.fillText(text, left, middle);
        pen.restore();
      }
    } else if (lane.index <= 5) {
      pen.fillStyle = colour(["store", "flush", "fence", "link"][lane.index - 2]);
      // User mode above, the kernel below.
      const half = lane.height / 2;
      pen.fillRect(x, lane.top + (item.user ? 1 : half), wide, half - 1);
    } else if (lane.index === 6) {
      mark(pen, item.broken ? "cross" : "diamond", x, middle, 6, colour(item.broken ? "bad" : "link"));
    } else {
      const bounded = item.point.search && !item.point.search.exhaustive;
      mark(pen, item.how === "bad" ? "cross" : bounded ? "ring" : "dot", x, middle, item === selected ? 8 : 5, colour(item.how));
    }
  }
  function drawAxis(pen, colour, y, width) {
    pen.fillStyle = colour("dim");
    // Round numbers, about evenly: the axis may be squeezed.
    let last = -1;
    for (let x = LABELS; x < width - 40; x += 110) {
      const place = view.from + (x - LABELS) / scale(), room = axis.from(place + 55 / scale()) - axis.from(place);
      const power = 10 ** Math.floor(Math.log10(Math.max(1, room)));
      const at = Math.ceil(axis.from(place) / power) * power;
      if (at === last || xOf(at) + 50 > width) continue;
      last = at;
      pen.fillRect(xOf(at), y - GAP, 1, 5);
      pen.fillText(count(at), xOf(at) + 3, y + 8);
    }
    pen.textAlign = "right";
    pen.fillText("events", LABELS - 8, y + 8);
    pen.textAlign = "left";
  }
  function mark(pen, shape, x, y, size, colour) {
    pen.strokeStyle = pen.fillStyle = colour;
    pen.lineWidth = 2.5;
    pen.beginPath();
    if (shape === "cross") {
      pen.moveTo(x - size, y - size); pen.lineTo(x + size, y + size);
      pen.moveTo(x + size, y - size); pen.lineTo(x - size, y + size);
      pen.stroke();
    } else if (shape === "diamond") {
      pen.moveTo(x, y - size); pen.lineTo(x + size, y); pen.lineTo(x, y + size); pen.lineTo(x - size, y);
      pen.fill();
    } else {
      pen.arc(x, y, size - 0.5, 0, 7);
      if (shape === "ring") pen.stroke(); else pen.fill();
    }
  }
  function at(x, y) {
    const lane = shownLanes.find(it => y >= it.top && y < it.top + it.height);
    if (!lane) return null;
    // In pixels, so that it is the same wherever the axis is squeezed.
    const distance = item => Math.max(0, xOf(item.begin) - x, x - xOf(item.end));
    const slack = 8;
    let best = null;
    for (const item of lanes[lane.index]) {
      const nearer = best && (distance(item) - distance(best) || worst(best) - worst(item));
      if (distance(item) <= slack && (!best || nearer < 0)) best = item;
    }
    return best;
  }
  function select(item) {
    if (!item) return;
    selected = item;
    const at = axis.to(item.begin);
    if (at < view.from || at > view.to) place(at - (view.to - view.from) / 2, view.to - view.from);
    else draw();
    detail.replaceChildren(...describe(item, findings, openFinding));
  }
  function move(by) {
    const lane = selected ? lanes[selected.lane] : lanes[7];
    if (!lane.length) return;
    const now = selected ? lane.indexOf(selected) : -by;
    select(lane[Math.max(0, Math.min(lane.length - 1, now + by))]);
  }
  function changeLane(by) {
    const index = shownLanes.findIndex(it => it.index === (selected ? selected.lane : 7));
    const lane = lanes[shownLanes[Math.max(0, Math.min(shownLanes.length - 1, index + by))].index];
    const events = selected ? selected.begin : view.from;
    select(lane.reduce((best, item) => (Math.abs(item.begin - events) < Math.abs(best.begin - events) ? item : best), lane[0]));
  }
  canvas.addEventListener("keydown", event => {
    const keys = {
      ArrowRight: () => move(1), ArrowLeft: () => move(-1), ArrowUp: () => changeLane(-1), ArrowDown: () => changeLane(1),
      "+": () => zoom(0.5), "=": () => zoom(0.5), "-": () => zoom(2), 0: () => place(0, axis.total),
      Home: () => select(lanes[selected ? selected.lane : 7][0]), End: () => select(lanes[selected ? selected.lane : 7].at(-1)),
      Enter: () => { const link = detail.querySelector("button"); if (link) link.click(); },
    };
    if (keys[event.key] && !event.ctrlKey && !event.metaKey && !event.altKey) { keys[event.key](); event.preventDefault(); }
  });
  canvas.addEventListener("wheel", event => {
    if (event.ctrlKey || event.metaKey) {
      zoom(event.deltaY > 0 ? 1.25 : 0.8, view.from + (event.offsetX - LABELS) / scale());
    } else if (event.deltaX || event.shiftKey) {
      place(view.from + (event.deltaX || event.deltaY) / scale(), view.to - view.from);
    } else return;
    event.preventDefault();
  }, { passive: false });
  let drag = null;
  canvas.addEventListener("pointerdown", event => { drag = { x: event.offsetX, from: view.from, moved: false }; });
  canvas.addEventListener("pointermove", event => {
    if (!drag) { const item = at(event.offsetX, event.offsetY); canvas.title = item ? item.title : ""; return; }
    if (Math.abs(event.offsetX - drag.x) > 4 && !drag.moved) { drag.moved = true; canvas.setPointerCapture(event.pointerId); }
    if (drag.moved) place(drag.from - (event.offsetX - drag.x) / scale(), view.to - view.from);
  });
  canvas.addEventListener("pointerup", event => {
    if (drag && !drag.moved) select(at(event.offsetX, event.offsetY));
    drag = null;
  });
  canvas.addEventListener("pointercancel", () => { drag = null; });
  canvas.addEventListener("dblclick", event => zoom(0.25, view.from + (event.offsetX - LABELS) / scale()));
  canvas.style.height = height + "px";
  new ResizeObserver(() => requestAnimationFrame(draw)).observe(canvas);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  document.addEventListener("themechange", draw);

  const isSqueezed = canSqueeze && eventsOf(report) > 2000;
  const squeeze = canSqueeze ? el("button", { "aria-pressed": String(isSqueezed), title: "Long runs of events of one kind take less room", onclick: () => {
    const on = squeeze.getAttribute("aria-pressed") !== "true";
    squeeze.setAttribute("aria-pressed", on);
    axis = axisOf(report, on);
    place(0, axis.total);
  } }, "Squeeze") : "";
  const legend = el("div", { class: "legend" },
    ["bad|crash point that shows a violation (✕)", "warn|that shows something else", "good|where all was well", "link|promise (broken: ✕)"]
      .map(text => text.split("|")).map(([name, text]) => el("span", {}, el("i", { style: `background: var(--${name})` }), text)),
    report.points.some(point => point.search) ? el("span", {}, "○ bounded, ● exhaustive") : "",
    el("span", {}, "stores, flushes and fences: user mode above, the kernel below"));
  const node = el("section", { "aria-label": "Timeline" }, el("h2", { id: "timeline" }, "Timeline"),
    el("div", { class: "card" },
      el("div", { class: "tools" },
        el("button", { onclick: () => zoom(0.5), "aria-label": "Zoom in" }, "+"),
        el("button", { onclick: () => zoom(2), "aria-label": "Zoom out" }, "−"),
        el("button", { onclick: () => place(0, axis.total) }, "All"),
        squeeze,
        el("button", { onclick: () => move(-1), "aria-label": "Previous" }, "‹"),
        el("button", { onclick: () => move(1), "aria-label": "Next" }, "›"),
        el("span", { class: "fill dim wide" }, "drag to move, double click or Ctrl + wheel to zoom, ? for keys")),
      canvas, detail, legend));
  const show = events => {
    const item = lanes[7].find(it => it.begin === events);
    if (!item) return;
    place(axis.to(events) - axis.total / 16, axis.total / 8);
    select(item);
    node.scrollIntoView({ block: "start" });
    canvas.focus({ preventScroll: true });
  };
  return { node, show };
}

/** What is known of a thing on the timeline. */
function describe(item, findings, openFinding) {
  const nodes = [el("strong", {}, item.title)];
  if (item.lane < 6) nodes.push(el("p", { class: "dim" }, `events ${count(item.begin)} to ${count(item.end)}`));
  const point = item.point;
  if (!point) return nodes;
  const facts = [point.window, point.step, `chosen by ${point.reasons.join(", ")}`, `${some(point.in_flight, "part")} in flight`,
    `2^${point.log2} states`, `${some(point.judged, "distinct content")} judged`, `${some(point.promises, "promise")} hold`];
  if (point.search) facts.push(point.search.exhaustive ? "exhaustive" : `bounded: ${point.search.bounded || ""}`);
  nodes.push(" ", ...point.found.map(name => badge(name)), el("p", { class: "dim" }, facts.filter(Boolean).join(" · ")));
  const here = findings.map((finding, index) => [finding, index]).filter(([it]) => !it.earlier && it.smallest.events === point.events);
  nodes.push(...here.slice(0, 5).map(([finding, index]) =>
    el("p", {}, el("button", { onclick: () => openFinding(index) }, `${finding.class}: ${finding.text}`))));
  point.outcomes.forEach(outcome => nodes.push(el("p", { class: "mono dim" }, `came back: ${outcome}`)));
  return nodes;
}
