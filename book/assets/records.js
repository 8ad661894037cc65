// Two ways through the records: the settings of an experiment, two of them compared; and the claims with their
// verdicts. Each stands in a page as <div class="explorer" data-explorer="experiments">words</div> (or
// "scoreboard"), and reads one file that was made when the book was built.
const here = (path) => new URL(path, import.meta.url).href;
const sum = (values) => values.reduce((total, value) => total + value, 0);
const mean = (values) => sum(values) / values.length;
const variance = (values) => sum(values.map((v) => (v - mean(values)) ** 2)) / (values.length - 1);
const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(3);

// --- statistics, as cmrtrial.compare.compare ------------------------------------------------------------

// Student's t beyond which (1 - level) / 2 lies. With t = sqrt(freedom) tan(angle) its density is a power of
// the cosine, which is summed (midpoints) until the share inside is the level.
export function quantile(level, freedom) {
  const step = Math.PI / 2 / 20000;
  const density = (n) => Math.cos((n + 0.5) * step) ** (freedom - 1);
  let whole = 0;
  for (let n = 0; n < 20000; n++) whole += density(n);
  let [inside, n] = [0, 0];
  while (inside + density(n) < level * whole) inside += density(n++);
  const angle = (n + (level * whole - inside) / density(n)) * step;
  return Math.sqrt(freedom) * Math.tan(angle);
}

// Setting a minus setting b on the folds that both ran on: patient by patient, or, where some of a setting's
// runs collapsed and others did not, fold by fold.
export function compare(a, b, { patients, folds }) {
  const common = Object.keys(a.folds).filter((fold) => fold in b.folds);
  const count = (setting, what) => sum(common.map((fold) => setting.folds[fold][what]));
  const mixed = [a, b].some((s) => count(s, 1) && count(s, 1) < count(s, 0));
  const on = (setting, fold) => setting.dice.filter((d, i) => d !== null && String(patients[i] % folds) === fold);
  const both = patients.map((p, i) => i).filter((i) => common.includes(String(patients[i] % folds)) && a.dice[i] !== null && b.dice[i] !== null);
  const d = mixed ? common.map((fold) => mean(on(a, fold)) - mean(on(b, fold))) : both.map((i) => a.dice[i] - b.dice[i]);
  const found = { mean: mean(d), each: d, unit: mixed ? "folds" : "patients", folds: common, runs: [count(a, 0), count(b, 0)], low: null, high: null };
  if (d.length < 2 || (!mixed && !(a.luck && b.luck))) return found;
  const parts = [[variance(d) / d.length, d.length - 1]]; // what adds to the squared error, and its degrees of freedom
  const luck = (setting) => [setting.luck[0] / count(setting, 0), setting.luck[1]];
  if (!mixed && a.whose === b.whose) parts.push([luck(a)[0] + luck(b)[0], luck(a)[1]]);
  else if (!mixed) parts.push(luck(a), luck(b));
  const whole = sum(parts.map(([part]) => part));
  const freedom = whole ** 2 / sum(parts.map(([part, its]) => part ** 2 / its));
  const half = quantile(0.95, freedom) * Math.sqrt(whole);
  return { ...found, low: found.mean - half, high: found.mean + half };
}

// --- small pictures ---------------------------------------------------------------------------------------
function drawing(width, height, ...shapes) {
  const element = (tag, attributes) => {
    const shape = document.createElementNS("http://www.w3.org/2000/svg", tag);
    Object.entries(attributes).forEach(([name, value]) => shape.setAttribute(name, value));
    return shape;
  };
  const svg = element("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" });
  svg.append(...shapes.map(([tag, attributes]) => element(tag, attributes)));
  return svg;
}
const dots = (values, scale, middle) => values.map((v, n) => ["circle", { cx: scale(v), cy: middle + (((n * 7) % 9) - 4), r: 2, class: "dot" }]);
const strip = (values) => {
  const scale = (v) => 3 + 154 * v;
  const svg = drawing(160, 18, ["line", { x1: 3, x2: 157, y1: 9, y2: 9, class: "axis" }], ...dots(values, scale, 9), ["line", { x1: scale(mean(values)), x2: scale(mean(values)), y1: 1, y2: 17, class: "mean" }]);
  svg.removeAttribute("aria-hidden");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", `from ${Math.min(...values).toFixed(2)} to ${Math.max(...values).toFixed(2)}`);
  return svg;
};
function differences(found, margin) {
  const widest = Math.max(0.1, ...found.each.map(Math.abs));
  const scale = (v) => 160 + (150 * v) / widest;
  const shapes = [
    ["rect", { x: scale(-margin), width: scale(margin) - scale(-margin), y: 0, height: 46, class: "margin" }],
    ["line", { x1: 160, x2: 160, y1: 0, y2: 46, class: "axis" }],
    ...dots(found.each, scale, 12),
    ["circle", { cx: scale(found.mean), cy: 34, r: 4, class: "mean" }],
  ];
  if (found.low !== null) shapes.push(["line", { x1: scale(found.low), x2: scale(found.high), y1: 34, y2: 34, class: "mean" }]);
  return drawing(320, 46, ...shapes);
}

const chooser = (make, name, options, changed) => {
  const select = make("select", {}, ...options.map(([value, words]) => make("option", { value }, words)));
  select.addEventListener("change", changed);
  return [make("label", {}, `${name} `, select), select];
};
const searcher = (make, name, changed) => {
  const input = make("input", { type: "text", spellcheck: false });
  input.addEventListener("input", changed);
  return [make("label", {}, `${name} `, input), input];
};
const holds = (text, words) => words.toLowerCase().split(/\s+/).every((word) => text.toLowerCase().includes(word));

// --- experiments ------------------------------------------------------------------------------------------
export async function experiments(place, make) {
  const data = await (await fetch(here("experiments.json"))).json();
  const names = [...new Set(data.experiments.map((each) => each.name))];
  const order = { by: "dice", down: true };
  const chosen = { A: null, B: null };
  const [nameLabel, name] = chooser(make, "experiment", names.map((n) => [n, n.replaceAll("-", " ")]), () => begin());
  const [protocolLabel, protocol] = chooser(make, "recipe", [], () => begin(true));
  const [wordsLabel, words] = searcher(make, "only settings with", () => list());
  const says = make("div", { className: "explorer-says" });
  says.setAttribute("aria-live", "polite");
  const count = make("p", { className: "explorer-legend" });
  count.setAttribute("aria-live", "polite");
  const body = make("tbody");
  const columns = { setting: "setting", dice: "Dice", runs: "runs", collapsed: "collapsed" };
  const value = { setting: (s) => s.name, dice: (s) => mean(s.dice.filter((d) => d !== null)), runs: (s) => sum(Object.values(s.folds).map((f) => f[0])), collapsed: (s) => sum(Object.values(s.folds).map((f) => f[1])) };
  const heads = Object.entries(columns).map(([key, title]) => {
    const button = make("button", { type: "button", textContent: title });
    button.addEventListener("click", () => {
      Object.assign(order, { by: key, down: order.by === key ? !order.down : key !== "setting" });
      list();
    });
    return [key, make("th", { scope: "col" }, button)];
  });
  const headOf = Object.fromEntries(heads);
  const head = make("tr", {}, make("th", { scope: "col", textContent: "A" }), make("th", { scope: "col", textContent: "B" }), headOf.setting, headOf.dice, make("th", { scope: "col", textContent: "each patient, 0 to 1" }), headOf.runs, headOf.collapsed);
  const settings = () => data.experiments.find((e) => e.name === name.value && e.protocol === protocol.value).settings;

  const begin = (keep = false) => {
    if (!keep) {
      const on = data.experiments.filter((e) => e.name === name.value).map((e) => e.protocol);
      protocol.replaceChildren(...on.map((p) => make("option", { value: p }, p)));
    }
    const byDice = [...settings()].sort((a, b) => value.dice(b) - value.dice(a));
    [chosen.A, chosen.B] = [byDice[0], byDice.at(-1)];
    words.value = "";
    list();
    answer();
  };
  const list = () => {
    const rows = settings().filter((s) => holds(s.name, words.value));
    count.textContent = `${rows.length} of ${settings().length} settings`;
    const natural = new Intl.Collator("en", { numeric: true }).compare;
    rows.sort((a, b) => {
      const [x, y] = [a, b].map(value[order.by]);
      return (order.down ? -1 : 1) * (typeof x === "string" ? natural(x, y) : x - y);
    });
    heads.forEach(([key, cell]) => cell.setAttribute("aria-sort", key !== order.by ? "none" : order.down ? "descending" : "ascending"));
    const radio = (side, setting) => {
      const input = make("input", { type: "radio", name: `side-${side}`, checked: chosen[side] === setting });
      input.setAttribute("aria-label", `${side}: ${setting.name}`);
      input.addEventListener("change", () => {
        chosen[side] = setting;
        answer();
      });
      return make("td", {}, input);
    };
    body.replaceChildren(
      ...rows.map((s) => {
        const folds = Object.keys(s.folds).length;
        return make("tr", {}, radio("A", s), radio("B", s), make("th", { scope: "row", textContent: s.name }), make("td", { textContent: value.dice(s).toFixed(3) }), make("td", {}, strip(s.dice.filter((d) => d !== null))),
          make("td", { textContent: folds < data.folds ? `${value.runs(s)}, on ${folds} of ${data.folds} folds` : value.runs(s) }), make("td", { textContent: value.collapsed(s) || "" }));
      }),
    );
  };
  const answer = () => {
    const { A, B } = chosen;
    if (A === B) return says.replaceChildren(make("p", {}, "Choose two settings, one in column A and one in column B."));
    const found = compare(A, B, data);
    place.dataset.compared = JSON.stringify({ A: A.name, B: B.name, ...found });
    if (!found.folds.length) return says.replaceChildren(make("p", {}, `${A.name} and ${B.name} ran on no fold in common, so no patient has both.`));
    const interval = found.low === null ? ", too few to say how sure" : `, 95 % interval ${signed(found.low)} to ${signed(found.high)}`;
    const zero = found.low === null ? "" : found.low > 0 || found.high < 0 ? " Zero lies outside." : found.low > -data.margin && found.high < data.margin ? ` Zero lies inside, and all of it within ${data.margin}.` : " Zero lies inside.";
    const unit = found.unit === "folds" ? "folds, since some of the runs collapsed and others did not" : "patients";
    says.replaceChildren(
      make("p", {}, `${A.name} minus ${B.name}: ${signed(found.mean)} Dice${interval}.${zero} In pairs over ${found.each.length} ${unit}; ${found.runs[0]} against ${found.runs[1]} training${found.runs[1] === 1 ? "" : "s"}.`),
      differences(found, data.margin),
    );
  };
  const note = make("p", { className: "explorer-legend" }, `Violet: the mean and its interval. Grey: each patient; the band is ±${data.margin}. One look at two settings is no verdict: among many looks some intervals miss zero by chance.`);
  place.replaceChildren(make("div", { className: "explorer-filters" }, nameLabel, protocolLabel, wordsLabel), count, make("table", {}, make("thead", {}, head), body), make("div", { className: "explorer-controls" }, says, note));
  begin();
}

// --- the scoreboard ---------------------------------------------------------------------------------------
export async function scoreboard(place, make) {
  const { claims } = await (await fetch(here("verdicts.json"))).json();
  const tally = (key) => [...new Set(claims.map(key))].map((value) => [value, `${value} (${claims.filter((c) => key(c) === value).length})`]);
  const subject = (claim) => claim.page?.title ?? claim.about;
  const [verdictLabel, verdict] = chooser(make, "verdict", [["", "all"], ...tally((c) => c.verdict)], () => list());
  const [pageLabel, page] = chooser(make, "page", [["", "all"], ...tally(subject)], () => list());
  const [wordsLabel, words] = searcher(make, "only claims with", () => list());
  const says = make("p", { className: "explorer-says" });
  says.setAttribute("aria-live", "polite");
  const rows = make("ul", { className: "claims", tabIndex: 0 }); // it scrolls, also without a mouse
  rows.setAttribute("aria-label", "claims");
  const list = () => {
    const kept = claims.filter((c) => (!verdict.value || c.verdict === verdict.value) && (!page.value || subject(c) === page.value) && holds(`${c.text} ${c.said} ${c.verdict} ${subject(c)}`, words.value));
    says.textContent = `${kept.length} of ${claims.length} claims`;
    rows.replaceChildren(
      ...kept.map((c) => {
        const about = c.page ? make("a", { href: here(`../${c.page.path}`) }, subject(c)) : subject(c);
        return make("li", {}, make("span", { className: "verdict", textContent: c.verdict }), ` ${c.text} `, make("small", {}, `${c.late ? "Asked late. " : ""}${c.ambiguous ? `Ambiguous: ${c.ambiguous} ` : ""}The report: ${c.said}. ${c.found ? `We: ${c.found}. ` : ""}`, about));
      }),
    );
    rows.querySelectorAll("li").forEach((line, n) => (line.dataset.verdict = kept[n].verdict));
  };
  place.replaceChildren(make("div", { className: "explorer-filters" }, verdictLabel, pageLabel, wordsLabel), says, rows);
  list();
}
