"use strict";
// The page: verdict first, then everything that it rests on.

const REPORTS = JSON.parse(document.getElementById("data").textContent);

/** The verdict in words, and its colour. */
function verdictOf(report) {
  const found = [...new Set(report.findings.flatMap(it => [it.class, ...(it.symptoms || []).map(symptom => symptom.class)]))].join(", ");
  const expected = report.expect.join(", ");
  switch (report.verdict) {
    case "kept": return ["All promises kept", "good"];
    case "expected": return [`Found ${found}, as expected`, "good"];
    case "violated": return [expected ? `VIOLATED: expected ${expected}, found ${found || "nothing"}` : `VIOLATED: ${found}`, "bad"];
    case "part": return [`One shard: found ${found || "nothing"}`, "warn"];
    default: return ["INCONCLUSIVE", "warn"];
  }
}

const nameOf = report => report.scenario + (report.settings.mutant ? `, mutant ${report.settings.mutant}` : "");

function verdictSection(report) {
  const [words, how] = verdictOf(report), counts = report.counts;
  const fact = (name, value, more) => el("div", {}, el("dt", {}, name), el("dd", {}, value, more ? el("small", {}, more) : ""));
  return el("section", { "aria-label": "Verdict" },
    el("div", { class: "verdict " + how },
      el("h1", {}, words), el("p", {}, el("strong", {}, nameOf(report)), ` on ${report.settings.platform}, ${report.settings.granularity}, seed ${report.settings.seed}`),
      report.inconclusive.map(why => el("p", {}, `inconclusive: ${why}`)),
      report.recording_warnings.map(why => el("p", {}, `warning while recording: ${why}`))),
    el("dl", { class: "facts" },
      fact("Findings", count(report.findings.length)),
      fact("Crash points", count(counts.crash_points), `${count(report.points.filter(point => point.found.length).length)} with something found`),
      fact("States judged", count(counts.states_distinct), `of 2^${counts.states_exist_log2}: ${counts.exhaustive ? "exhaustive" : "a bounded choice"}`),
      fact("Promises judged", `${count(counts.promises_judged)} of ${count(counts.promises)}`),
      fact("Events recorded", count(counts.events)),
      fact("Canary", report.canary.startsWith("seen") ? "seen" : "not seen", report.canary.replace(/^seen: /, ""))));
}

const keysOf = [["j, k", "next and previous finding"], ["/", "filter the findings"], ["t", "go to the timeline"], ["← →", "on the timeline: next and previous thing"],
  ["↑ ↓", "on the timeline: another lane"], ["+ − 0", "on the timeline: zoom, all"], ["Enter", "open"], ["[ ]", "previous and next report"], ["?", "this"]];

const help = el("dialog", {}, el("h2", {}, "Keys"), table(["", ""], keysOf.map(([key, text]) => [el("kbd", {}, key), text])),
  el("form", { method: "dialog" }, el("p", {}, el("button", {}, "Close"))));

let shown = { index: 0, findings: null };

function show(index) {
  const report = REPORTS[index];
  let timeline = null;
  const findings = findingsSection(report, events => timeline.show(events));
  timeline = timelineSection(report, report.findings, at => findings.open(at));
  shown = { index, findings };
  document.title = `${verdictOf(report)[0]} - ${nameOf(report)} - pmemsim`;
  document.getElementById("report").replaceChildren(topBar(), ...(REPORTS.length > 1 ? [runs(index)] : []), verdictSection(report), timeline.node,
    findings.node, coverageSection(report, events => timeline.show(events)), scenarioSection(report), provenanceSection(report), help);
}

function runs(current) {
  const item = (report, index) => el("li", {}, el("button", { "aria-pressed": String(index === current), onclick: () => { location.hash = `report=${index}`; } },
    badge(report.verdict, verdictOf(report)[1]), el("span", {}, nameOf(report))));
  const bad = REPORTS.filter(report => verdictOf(report)[1] === "bad").length;
  return el("nav", { "aria-label": "Reports" }, el("p", { class: "dim" }, `${some(REPORTS.length, "run")}, ${count(bad)} violated`),
    el("ul", { class: "runs" }, REPORTS.map(item)));
}

function topBar() {
  const themes = ["auto", "light", "dark"];
  const now = () => document.documentElement.dataset.theme || "auto";
  const button = el("button", { onclick: () => {
    const next = themes[(themes.indexOf(now()) + 1) % themes.length];
    if (next === "auto") delete document.documentElement.dataset.theme; else document.documentElement.dataset.theme = next;
    button.textContent = `Theme: ${now()}`;
    document.dispatchEvent(new Event("themechange"));
  } }, `Theme: ${now()}`);
  return el("div", { class: "top" }, el("strong", {}, "pmemsim"),
    el("span", {}, el("a", { href: "report.json" }, "JSON"), " ", el("button", { onclick: () => help.showModal(), "aria-label": "Keys" }, "?"), " ", button));
}

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  const go = by => { location.hash = `report=${(shown.index + by + REPORTS.length) % REPORTS.length}`; };
  const keys = {
    j: () => shown.findings.step(1), k: () => shown.findings.step(-1), "/": () => shown.findings.search.focus(),
    t: () => { const canvas = document.querySelector("canvas"); canvas.focus(); canvas.scrollIntoView({ block: "center" }); },
    "[": () => go(-1), "]": () => go(1), "?": () => help.showModal(),
  };
  if (keys[event.key]) { keys[event.key](); event.preventDefault(); }
});

function fromHash() {
  const match = /^#report=(\d+)$/.exec(location.hash);
  if (match || !shown.findings) show(match && REPORTS[match[1]] ? Number(match[1]) : 0);
}
addEventListener("hashchange", fromHash);
fromHash();
