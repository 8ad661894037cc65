// Two ways through the records: the settings of an experiment, two of them compared; and the claims with their
// verdicts. Each stands in a page as <div class="explorer" data-explorer="experiments">words</div> (or
// "scoreboard"), and reads one file that was made when the book was built.
const here = (path) => new URL(path, import.meta.url).href;
const sum = (values) => values.reduce((total, value) => total + value, 0);
const mean = (values) => sum(values) / values.length;
const signed = (value) => (value < 0 ? "−" : "+") + Math.abs(value).toFixed(3);

// --- comparisons, computed by cmrtrial.compare.compare when the book was built ----------------------------

// Setting a minus setting b, two of an experiment's settings: each setting lists its differences from those before it.
// null where they ran on no fold in common. each: a difference for each patient or, where some of a setting's runs
// collapsed and others did not, for each fold.
export function difference(settings, a, b) {
  const forward = settings.indexOf(a) > settings.indexOf(b);
  const [later, earlier] = forward ? [a, b] : [b, a];
  const stored = later.differences[settings.indexOf(earlier)];
  if (!stored) return null;
  const { mean, low, high, runs, folds } = stored;
  const pairs = later.dice.map((dice, n) => [dice, earlier.dice[n]]).filter((pair) => !pair.includes(null));
  const each = folds ?? pairs.map(([x, y]) => x - y);
  const unit = folds ? "folds" : "patients";
  if (forward) return { mean, low, high, runs, each, unit };
  const minus = (value) => (value === null ? null : -value);
  return { mean: -mean, low: minus(high), high: minus(low), runs: [runs[1], runs[0]], each: each.map(minus), unit };
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
function differencePicture(result, margin) {
  const widest = Math.max(0.1, ...result.each.map(Math.abs));
  const scale = (v) => 160 + (150 * v) / widest;
  const shapes = [
    ["rect", { x: scale(-margin), width: scale(margin) - scale(-margin), y: 0, height: 46, class: "margin" }],
    ["line", { x1: 160, x2: 160, y1: 0, y2: 46, class: "axis" }],
    ...dots(result.each, scale, 12),
    ["circle", { cx: scale(result.mean), cy: 34, r: 4, class: "mean" }],
  ];
  if (result.low !== null) shapes.push(["line", { x1: scale(result.low), x2: scale(result.high), y1: 34, y2: 34, class: "mean" }]);
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
  const names = [...new Set(data.experiments.map((e) => e.name))];
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
    const result = difference(settings(), A, B);
    if (!result) return says.replaceChildren(make("p", {}, `${A.name} and ${B.name} ran on no fold in common, so no patient has both.`));
    const { mean, low, high, each, runs } = result;
    const interval = low === null ? ", too few to say how sure" : `, 95 % interval ${signed(low)} to ${signed(high)}`;
    const zero = low === null ? "" : low > 0 || high < 0 ? " Zero lies outside." : low > -data.margin && high < data.margin ? ` Zero lies inside, and all of it within ${data.margin}.` : " Zero lies inside.";
    const unit = result.unit === "folds" ? "folds, since some of the runs collapsed and others did not" : "patients";
    says.replaceChildren(
      make("p", {}, `${A.name} minus ${B.name}: ${signed(mean)} Dice${interval}.${zero} In pairs over ${each.length} ${unit}; ${runs[0]} against ${runs[1]} training run${runs[1] === 1 ? "" : "s"}.`),
      differencePicture(result, data.margin),
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
