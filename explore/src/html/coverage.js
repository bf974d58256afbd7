"use strict";
// How much there was, how much was tried, and what was run.

function coverageSection(report, showPoint) {
  const counts = report.counts, points = report.points, lazy = report.settings.explore === "lazy";
  const least = counts.states_exist_exact || counts.states_exist.startsWith("more") ? "" : "at least ";
  const rows = [
    ["Crash states that exist", `${least}${/^\d+$/.test(counts.states_exist) ? count(counts.states_exist) : counts.states_exist} (2^${counts.states_exist_log2})`],
    ["Of them", counts.exhaustive ? "all were covered: exhaustive for this execution" : "a bounded choice was recovered"],
    ["States recovered and judged", counts.states_distinct], ["Left out by the budget", counts.states_left_out],
    ["Crash points", counts.crash_points], ["More, equal to one of them", counts.crash_points_equal],
    ["Judgements", counts.judged], ["Promises judged", counts.promises_judged], ["Of promises", counts.promises],
  ];
  if (lazy) rows.push(["Ways that recovery went", counts.recoveries || 0], ["Crash points exhaustive", counts.points_exhaustive || 0]);
  if (counts.crash_points_left_out) rows.push(["Events left out whose crash points are their own", counts.crash_points_left_out]);
  const part = lazy ? (counts.points_exhaustive || 0) / Math.max(1, counts.crash_points) : counts.exhaustive ? 1 : 0;
  const first = el("div", { class: "card pad" }, el("h3", {}, "States"));
  if (lazy) {
    first.append(el("div", { class: "meter", role: "img", "aria-label": `${Math.round(100 * part)} % of the crash points are exhaustive` },
      el("i", { style: `width: ${100 * part}%` })));
  }
  first.append(table(["", ""], rows));
  (report.in_recovery || []).forEach((level, index) => first.append(el("h3", {}, `Power cut in recovery (${index + 1})`), table(["", ""], [
    ["Recoveries recorded", level.recorded], ["That differ in what they write", level.different], ["Cut", level.roots.length],
    ["Crash points", level.crash_points], ["Of these, exhaustive", level.points_exhaustive], ["States judged", level.states],
  ])));
  return el("section", { "aria-label": "Coverage" }, el("h2", { id: "coverage" }, "Coverage"),
    el("div", { class: "columns" }, first, windowsCard(report)), pointsCard(points, showPoint));
}

const WINDOWS = [
  "the fault reaches DAX, until zeroing begins", "the new blocks are zeroed, until they are an extent", "the fault waits for the journal, until the fence before the commit record",
  "the commit record is copied", "until the fence behind the commit record", "until the page can be written", "until the user's first flush",
  "until the user's fence", "behind the user's fence",
];

function windowsCard(report) {
  const card = el("div", { class: "card pad" }, el("h3", {}, "Inside of faults"));
  const timeline = report.timeline;
  if (!timeline || !timeline.faults.length) {
    card.append(el("p", { class: "dim" }, "No windows of faults were asked for. Crash points of the kind window:W2 tell them."));
  } else {
    const rows = WINDOWS.map((text, number) => {
      const name = `W${number}`;
      const having = timeline.faults.filter(fault => fault.windows.some(it => it.name === name)).length;
      const inside = report.points.filter(point => point.window && point.window.endsWith(name));
      const bad = inside.filter(point => point.found.some(it => VIOLATIONS.has(it))).length;
      return [el("span", {}, badge(name, having ? "good" : "warn"), " ", text), having, inside.length, bad];
    });
    card.append(table(["window", "faults that have it", "crash points", "with violations"], rows));
  }
  if (timeline && timeline.functions.length) {
    const reached = timeline.functions.filter(it => it.calls).length;
    card.append(el("h3", {}, `Functions of the fault path: ${reached} of ${timeline.functions.length} reached`),
      table(["function", "calls"], timeline.functions.map(it => [el("code", {}, it.name), it.calls])));
  }
  return card;
}

function pointsCard(points, showPoint) {
  const card = el("div", { class: "card pad", style: "margin-top: 12px" });
  const fill = wanted => {
    const chosen = points.filter(point => wanted === "all" || (wanted === "found" ? point.found.length : point.search && !point.search.exhaustive));
    const row = point => el("p", {},
      el("button", { onclick: () => showPoint(point.events) }, count(point.events)), " ",
      ...(point.found.length ? point.found.map(name => badge(name)) : [badge("kept", "good")]), " ",
      el("span", { class: "dim" }, [point.window, point.step, `${some(point.in_flight, "part")} in flight, 2^${point.log2} states, ${count(point.judged)} judged`,
        point.search && point.search.bounded].filter(Boolean).join(" · ")));
    holder.replaceChildren(chosen.length ? growing(chosen, 25, row).node : el("p", { class: "dim" }, "None."));
  };
  const holder = el("div");
  const choice = el("select", { "aria-label": "Which crash points", onchange: event => fill(event.target.value) },
    el("option", { value: "found" }, "where something was found"), el("option", { value: "bounded" }, "that are bounded"), el("option", { value: "all" }, "all"));
  card.append(el("h3", {}, `${some(points.length, "crash point")}: `, choice), holder);
  fill("found");
  return card;
}

function scenarioSection(report) {
  const broken = new Set(report.findings.filter(it => it.promise).map(it => it.promise.line));
  const lines = report.text.replace(/\n$/, "").split("\n").map((line, index) => el("span", { class: broken.has(index + 1) ? "broken" : false }, line));
  return el("section", { "aria-label": "Scenario" }, el("h2", { id: "scenario" }, "Scenario"),
    el("p", { class: "dim" }, broken.size ? "Steps whose promises are broken are marked. " : "",
      el("a", { href: `data:text/plain;charset=utf-8,${encodeURIComponent(report.text)}`, download: `${fileName(report.scenario)}.toml` }, "Save it")), el("pre", { class: "source", tabindex: 0 }, lines));
}

const fileName = name => name.replace(/[^A-Za-z0-9._-]+/g, "-");

function provenanceSection(report) {
  const settings = Object.entries(report.settings).map(([key, value]) => [key.replaceAll("_", " "), String(value)]);
  const run = [...report.provenance, ["trace", report.trace]];
  const card = (title, rows) => el("div", { class: "card pad" }, el("h3", {}, title), table(["", ""], rows.map(([key, value]) => [key, el("code", {}, value)])));
  return el("section", { "aria-label": "What was run" }, el("h2", { id: "provenance" }, "What was run"),
    el("div", { class: "columns" }, card("Provenance", run), card("Settings", settings)));
}
