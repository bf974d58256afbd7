"use strict";
// What must not be: one card for each finding; its body is made when it is opened.

const SHOWN = 50;

function findingsSection(report, showPoint) {
  const findings = report.findings;
  const classes = [...new Set(findings.map(it => it.class))];
  const filter = { text: "", classes: new Set(), order: null };
  const words = findings.map(it => [it.class, it.id, it.text, it.promise && it.promise.text, it.cause && it.cause.at,
    ...it.stores.map(store => `${store.at} ${store.file || ""} ${store.step || ""}`)].join(" ").toLowerCase());
  const holder = el("div");
  const told = el("span", { class: "dim", role: "status" });
  let list = null, visible = [];

  function refresh() {
    const fits = index => (!filter.classes.size || filter.classes.has(findings[index].class))
      && filter.text.split(/\s+/).every(word => words[index].includes(word));
    visible = findings.map((_, index) => index).filter(fits);
    list = growing(visible, SHOWN, index => findingCard(report, findings[index], index, showPoint));
    told.textContent = visible.length === findings.length ? "" : `${count(visible.length)} of ${count(findings.length)}`;
    holder.replaceChildren(list.node);
  }
  const search = el("input", { type: "search", placeholder: "Filter: file, function, class …", "aria-label": "Filter the findings", class: "fill",
    oninput: event => { filter.text = event.target.value.trim().toLowerCase(); refresh(); } });
  const chips = classes.map(name => el("button", { "aria-pressed": "false", onclick: event => {
    if (!filter.classes.delete(name)) filter.classes.add(name);
    event.target.setAttribute("aria-pressed", filter.classes.has(name));
    refresh();
  } }, `${name} ${count(findings.filter(it => it.class === name).length)}`));
  const node = el("section", { "aria-label": "Findings" },
    el("h2", { id: "findings", tabindex: -1 }, `Findings: ${findings.length ? count(findings.length) : "none"}`));
  if (findings.length > 1) node.append(el("div", { class: "tools card" }, search, classes.length > 1 ? chips : [], told));
  node.append(holder);
  if (!findings.length) holder.append(el("p", { class: "dim" }, "Nothing was found that must not be."));
  else refresh();

  /** Opens one finding and goes there. */
  function open(index) {
    if (!visible.includes(index)) {
      filter.text = search.value = "";
      filter.classes.clear();
      chips.forEach(chip => chip.setAttribute("aria-pressed", "false"));
      refresh();
    }
    list.showTo(visible.indexOf(index));
    const button = list.list.children[visible.indexOf(index)].querySelector("button");
    if (button.getAttribute("aria-expanded") !== "true") button.click();
    button.focus();
    button.scrollIntoView({ block: "start" });
  }
  /** Goes to the next finding, or to the one before. */
  function step(by) {
    const buttons = [...holder.querySelectorAll(".finding > button")];
    const now = buttons.findIndex(button => button.parentNode.contains(document.activeElement));
    const next = buttons[Math.max(0, Math.min(buttons.length - 1, now < 0 ? 0 : now + by))];
    if (next) { next.focus(); next.scrollIntoView({ block: "nearest" }); }
  }
  return { node, open, step, search };
}

function findingCard(report, finding, index, showPoint) {
  const body = el("div", { class: "body", hidden: true });
  const toggle = () => {
    const opens = body.hidden;
    if (opens && !body.childNodes.length) body.append(...findingBody(report, finding, showPoint));
    body.hidden = !opens;
    button.setAttribute("aria-expanded", opens);
  };
  const button = el("button", { "aria-expanded": "false", onclick: toggle },
    badge(finding.class), el("span", { class: "text" }, finding.text), el("span", { class: "id mono" }, finding.id));
  const card = el("article", { class: "finding card" }, button, body);
  if (report.findings.length <= 3 && index === 0) toggle();
  return card;
}

function findingBody(report, finding, showPoint) {
  const nodes = [];
  const smallest = finding.smallest;
  if (finding.promise) {
    nodes.push(el("p", {}, "Broken: ", el("strong", {}, finding.promise.text),
      ` (line ${finding.promise.line} of the scenario, event ${count(finding.promise.event)})`));
  }
  const cuts = finding.earlier || [];
  cuts.forEach(cut => nodes.push(el("p", {}, `The power goes behind ${some(cut.events, "event")}, `
    + `${count(cut.lost.length)} of ${some(cut.in_flight, "part")} in flight lost (state ${cut.state}), and again in recovery:`)));
  if (finding.id === "recording") {
    nodes.push(el("p", {}, `While the scenario was recorded, behind ${some(smallest.events, "event")}.`));
  } else {
    const lines = smallest.lost_lines ? ` in ${some(smallest.lost_lines, "line")}` : "";
    nodes.push(el("p", {}, `Shows in ${some(finding.states, "state")} at ${some(finding.points, "crash point")}. Smallest: behind `
      + `${some(smallest.events, "event")}, ${count(smallest.lost.length)} of ${some(smallest.in_flight, "part")} in flight lost${lines}. `,
      cuts.length ? "" : el("button", { onclick: () => showPoint(smallest.events) }, "Show on the timeline")));
  }
  if (finding.cause) {
    nodes.push(el("p", {}, "Cause: the store of event ", el("strong", {}, count(finding.cause.event)), " by ",
      el("code", {}, finding.cause.at), finding.cause.step ? ` (${finding.cause.step})` : "", ". With it there, this is gone."));
  }
  if (finding.content) nodes.push(contentRows(finding.content));
  if (finding.lines && finding.lines.length) nodes.push(lineRows(finding.lines, smallest.lost_lines || finding.lines.length));
  if (finding.stores.length) nodes.push(el("h3", {}, "The stores behind it"), ...finding.stores.map(storeNode));
  if (finding.symptoms && finding.symptoms.length) {
    nodes.push(el("h3", {}, "From the same cause"), growing(finding.symptoms, 10, symptomNode).node);
  }
  if (finding.console) {
    const of = finding.id === "recording" ? "recording" : "recovery";
    nodes.push(el("h3", {}, `Console of the ${of}`), el("pre", { tabindex: 0 }, finding.console));
  }
  nodes.push(el("h3", {}, "See it again"));
  if (report.settings.sampled) nodes.push(el("p", {}, "Recorded on KVM: it cannot be replayed."));
  else {
    const replay = `pmemsim replay report.json ${finding.id}`;
    nodes.push(command(replay), command(`${replay} --console`), command(`${replay} --gdb 1234`));
  }
  const minimise = minimiseCommand(report, finding);
  if (minimise) {
    nodes.push(el("p", { class: "dim" }, "The smallest scenario that shows the same class, found by leaving out steps and making sizes smaller (SCENARIO.toml is ",
      el("a", { href: "#scenario" }, "saved below"), "):"), command(minimise));
  }
  return nodes;
}

/** How a scenario is made smaller; nothing where a run had a bug put into its kernel, for that does not get it. */
function minimiseCommand(report, finding) {
  const { mutant, sampled, seed } = report.settings;
  if (mutant || sampled) return null;
  return `pmemsim minimise SCENARIO.toml --class ${finding.class} --seed ${seed} --output small.toml`;
}

function storeNode(store) {
  const what = store.count > 1 ? `${count(store.count)} stores from event ${count(store.event)}` : `Store, event ${count(store.event)}`;
  return el("div", {},
    el("p", {}, el("strong", {}, what), `: ${some(store.bytes, "byte")} at ${hex(store.address)}${store.file ? ` (${store.file})` : ""}, by `,
      el("code", {}, store.at), store.step ? `, in ${store.step}` : ""),
    el("p", { class: "lacked" }, store.lacked),
    store.wanted ? el("p", { class: "wanted" }, `What was missing: ${store.wanted}`) : "",
    store.stack.length ? el("ol", { class: "stack mono", tabindex: 0 }, store.stack.map(frame => el("li", {}, frame))) : "");
}

function symptomNode(symptom) {
  return el("div", {}, el("p", {}, badge(symptom.class), " ", symptom.text, " ", el("span", { class: "dim mono" }, symptom.id)),
    symptom.promise ? el("p", { class: "dim" }, `broken: ${symptom.promise.text} (line ${symptom.promise.line})`) : "");
}
