// The network in the page: a PNG that is dropped or a sample, segmented in this browser by onnxruntime-web.
// Nothing is sent anywhere. It stands in a page as <div class="explorer" data-explorer="model">words</div>. What the
// network draws on the samples was computed when the book was built, and lies beside them with the reference; the
// network is fetched when the reader first touches it. model/about.json says what the build had at hand.
const here = (path) => new URL(path, import.meta.url).href;
const NAMES = ["background", "right ventricle", "myocardium", "left ventricle"];
const SIDE = 96; // the network knows hearts at the size they have in slices of so many pixels
const LARGEST = 1.3 * SIDE; // larger pictures are shrunk to SIDE: from there on predict warns of them

async function get(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error(answer.statusText);
  return answer;
}

// --- the network ------------------------------------------------------------------------------------------
async function load() {
  let [network, ort, session] = [];
  try {
    network = new Uint8Array(await (await get(here("model/small.onnx"))).arrayBuffer());
  } catch {
    throw new Error("The network could not be loaded. Pick a slice to try again.");
  }
  try {
    ort = await import(here("onnxruntime/ort.wasm.bundle.min.mjs"));
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmPaths = { wasm: here("onnxruntime/ort-wasm-simd-threaded.wasm") };
    session = await ort.InferenceSession.create(network);
  } catch (error) {
    console.warn(error); // onnxruntime does not start twice in one page
    throw new Error("The program that runs the network did not start. Load the page again to try once more.");
  }
  return async ({ grey, width, height }) => {
    const started = performance.now();
    const image = new ort.Tensor("float32", grey, [1, 1, height, width]);
    const { probability } = await session.run({ image });
    return { probability: probability.data, milliseconds: performance.now() - started };
  };
}

// The most probable class of each pixel, and its probability; the first of equals, as numpy has it.
function toLabels(probability, pixels) {
  const [labels, sure] = [new Uint8Array(pixels), new Float32Array(pixels)];
  for (let i = 0; i < pixels; i++)
    for (let c = 0; c < 4; c++)
      if (!c || probability[c * pixels + i] > sure[i]) {
        sure[i] = probability[c * pixels + i];
        labels[i] = c;
      }
  return { labels, sure };
}

const SIDES = [[-1, 0], [1, 0], [0, -1], [0, 1]];
const CORNERS = [[-1, -1], [1, -1], [-1, 1], [1, 1]];
// Connected pieces of the pixels for which inside(i), perhaps also over corners: lists of their pixels.
function pieces(inside, width, height, corners) {
  const seen = new Uint8Array(width * height);
  const found = [];
  for (let start = 0; start < seen.length; start++) {
    if (seen[start] || !inside(start)) continue;
    const piece = [start];
    seen[start] = 1;
    for (const i of piece) {
      const [x, y] = [i % width, Math.floor(i / width)];
      for (const [right, down] of corners ? [...SIDES, ...CORNERS] : SIDES) {
        const next = i + right + down * width;
        if (x + right < 0 || x + right >= width || y + down < 0 || y + down >= height || seen[next] || !inside(next)) continue;
        seen[next] = 1;
        piece.push(next);
      }
    }
    found.push(piece);
  }
  return found;
}

// As cmrseg.postprocess.keep_largest_components: the largest piece of each class, and no hole in the ring.
export function keepLargestComponents(labels, width, height) {
  const cleaned = new Uint8Array(labels.length);
  for (const c of [1, 2, 3]) {
    const found = pieces((i) => labels[i] === c, width, height, true);
    const largest = Math.max(0, ...found.map((piece) => piece.length));
    found.find((piece) => piece.length === largest)?.forEach((i) => (cleaned[i] = c));
  }
  const edge = (i) => i < width || i >= labels.length - width || i % width === 0 || i % width === width - 1;
  for (const piece of pieces((i) => cleaned[i] < 2, width, height, false)) if (!piece.some(edge)) piece.forEach((i) => (cleaned[i] = 3));
  return cleaned;
}

// --- pictures ---------------------------------------------------------------------------------------------
const COLOURS = { 2: "RGB colour", 3: "a colour palette", 4: "grey with alpha", 6: "RGB colour with alpha" };
// A PNG of 8-bit grey without the chunks that only say how to show it, which a browser obeys: eXIf turns it, gAMA and
// iCCP change its greys, tRNS makes holes. What cmrseg.data.read_png refuses is refused here, so both see the same pixels.
function stored(bytes, name) {
  const refuse = (words) => {
    throw new Error(`${name} ${words}.`);
  };
  const number = (at) => new DataView(bytes.buffer).getUint32(at);
  const text = (at, length) => String.fromCharCode(...bytes.subarray(at, at + length));
  if (text(0, 8) !== "\x89PNG\r\n\x1a\n" || text(12, 4) !== "IHDR" || bytes.length < 33) refuse("is not a readable PNG: save your picture as PNG, in 8-bit grey");
  const [bits, colour] = bytes.subarray(24, 26);
  if (bits !== 8 || colour) refuse(`holds ${COLOURS[colour] ?? `${bits}-bit grey`}: scale its greys to 0 to 255 and save it with 8 bits of grey in each pixel`);
  if (Math.max(number(16), number(20)) > 4096) refuse("is far too large for a slice: crop or resample it");
  const parts = [bytes.subarray(0, 8)];
  for (let [at, kind] = [8, ""]; kind !== "IEND"; ) {
    const end = at + 12 + (at + 8 < bytes.length ? number(at) : Infinity);
    if (end > bytes.length) refuse("is not a readable PNG: it is cut short or damaged");
    kind = text(at + 4, 4);
    if (kind === "acTL") refuse("holds several pictures: store each in a file of its own");
    if (kind[0] < "a") parts.push(bytes.subarray(at, end)); // a capital: a chunk that pixels depend on
    at = end;
  }
  return new Blob(parts, { type: "image/png" });
}

export async function read(blob, name, shrinks = true) {
  const file = stored(new Uint8Array(await blob.arrayBuffer()), name);
  let picture;
  try {
    picture = await createImageBitmap(file, { colorSpaceConversion: "none" });
  } catch {
    throw new Error(`${name} is not a readable PNG: it is damaged.`);
  }
  const longest = Math.max(picture.width, picture.height);
  const scale = shrinks && longest > LARGEST ? SIDE / longest : 1;
  const [width, height] = [picture.width, picture.height].map((size) => Math.max(1, Math.round(size * scale)));
  if (Math.min(width, height) < 8) throw new Error(`${name} has ${picture.width} x ${picture.height} pixels: too few to hold a heart.`);
  const context = new OffscreenCanvas(picture.width, picture.height).getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0);
  const { data } = context.getImageData(0, 0, picture.width, picture.height);
  let grey = Float32Array.from({ length: data.length / 4 }, (_, i) => data[4 * i]);
  const levels = [...new Set(grey)];
  if ((levels.some((v) => v) && levels.every((v) => v < 4)) || (levels.length > 2 && levels.every((v) => v % 85 === 0)))
    throw new Error(`${name} has the few grey levels of a mask: bring the image itself.`);
  if (scale < 1) grey = shrink(grey, picture, width, height);
  const shrunk = scale < 1 ? ` It was shrunk from ${picture.width} x ${picture.height} to ${width} x ${height} pixels.` : "";
  return { grey, width, height, shrunk };
}

// Each pixel becomes the mean of what it covers, as with OpenCV's INTER_AREA in predict --resize.
function shrink(grey, picture, width, height) {
  const covered = (n, from, to) => {
    const [start, end] = [(n * from) / to, ((n + 1) * from) / to];
    const first = Math.floor(start + 1e-9);
    return Array.from({ length: Math.ceil(end - 1e-9) - first }, (_, k) => [first + k, (Math.min(end, first + k + 1) - Math.max(start, first + k)) / (end - start)]);
  };
  const [rows, columns] = [[height, picture.height], [width, picture.width]].map(([to, from]) => Array.from({ length: to }, (_, n) => covered(n, from, to)));
  return Float32Array.from({ length: width * height }, (_, i) => {
    let sum = 0;
    for (const [y, high] of rows[Math.floor(i / width)]) for (const [x, wide] of columns[i % width]) sum += high * wide * grey[y * picture.width + x];
    return Math.round(sum);
  });
}

const colours = () =>
  ["rv", "myo", "lv"].map((name) => {
    const hex = getComputedStyle(document.documentElement).getPropertyValue(`--class-${name}`).trim();
    return [1, 3, 5].map((place) => parseInt(hex.slice(place, place + 2), 16));
  });

// The picture of a sample, with the reference and what the network drew when the book was built.
const digits = (text) => (text ? Uint8Array.from(text, Number) : null);
async function sample(number) {
  try {
    const [picture, { truth, network, sure }] = await Promise.all([get(here(`samples/${number}.png`)).then((a) => a.blob()), get(here(`samples/${number}.json`)).then((a) => a.json())]);
    return { picture, truth: digits(truth), network: digits(network), sure };
  } catch {
    throw new Error(`Sample ${number} could not be loaded. Pick another, or load the page again.`);
  }
}

// --- what the reader touches ------------------------------------------------------------------------------
export async function model(place, make) {
  const about = await (await get(here("model/about.json"))).json();
  const lacks =
    typeof WebAssembly === "undefined"
      ? "This browser has no WebAssembly, in which the network runs; any current browser has it."
      : !about.network
        ? "This book was built without the network: weights/small.safetensors was not there."
        : !about.runtime
          ? "This book was built without onnxruntime-web, which runs the network (it comes with npm)."
          : "";
  if (lacks) return place.append(make("p", { className: "missing-part" }, lacks));

  let [image, name, labels, truth, painted] = [null, "", null, null, null];
  let [shown, looking, ready, loaded] = [0, Promise.resolve(), null, false];
  const cursor = { x: SIDE / 2, y: SIDE / 2 };
  let words = [];
  const begin = () =>
    (ready ??= load().then(
      (run) => {
        loaded = true;
        return run;
      },
      (error) => {
        ready = null;
        throw error;
      },
    ));
  const slider = (name, min, max, value, step) => {
    const input = make("input", { type: "range", min, max, step, value });
    input.addEventListener("input", () => draw());
    return [make("label", {}, `${name} `, input), input];
  };

  const canvas = make("canvas", { width: SIDE, height: SIDE });
  canvas.setAttribute("role", "img");
  const says = make("div", { className: "explorer-says" });
  says.setAttribute("aria-live", "polite");
  const thumbs = Array.from({ length: about.samples }, (_, n) => {
    const button = make("button", { type: "button" }, make("img", { src: here(`samples/${n + 1}.png`), alt: `sample ${n + 1}`, width: 48, height: 48 }));
    button.addEventListener("click", () => segment(() => show(n)));
    return button;
  });
  const file = make("input", { type: "file", accept: "image/png" });
  file.addEventListener("change", () => file.files[0] && segment(() => show(file.files[0])));
  const [opacityLabel, opacity] = slider("opacity of the colours", 0, 1, 0.55, 0.05);

  // Painting
  const modes = [["look", 0], ...NAMES.slice(1).map((name, n) => [`paint the ${name}`, n + 1])].map(([words, value]) => {
    const input = make("input", { type: "radio", name: "model-mode", value, checked: !value });
    input.addEventListener("change", () => {
      draw();
      if (value) queue(() => image && !labels && ask()); // what is painted is compared with the network's
    });
    return make("label", {}, input, ` ${words}`);
  });
  const mode = () => Number(modes.find((label) => label.firstChild.checked).firstChild.value);
  const [brushLabel, brush] = slider("width of the brush", 1, 15, 5, 2);
  const tick = (words) => {
    const input = make("input", { type: "checkbox" });
    input.addEventListener("change", () => draw());
    return [make("label", {}, input, ` ${words}`), input];
  };
  const [eraseLabel, erase] = tick("erase");
  const [outlineLabel, outline] = tick("show the outline that the network drew");
  const [referenceLabel, reference] = tick("show the outline of the reference");
  const wipe = make("button", { type: "button", textContent: "wipe all" });
  wipe.addEventListener("click", () => {
    painted.fill(0);
    draw();
  });
  const keys = make("p", { className: "explorer-legend" }, "Paint with the pointer, or go to the picture with the Tab key: arrows move the brush, space paints, Delete erases.");
  const tools = make("div", { className: "model-tools" }, brushLabel, eraseLabel, outlineLabel, referenceLabel, wipe, keys);

  const dab = (x, y, value) => {
    const radius = Number(brush.value) / 2;
    for (let v = 0; v < image.height; v++) for (let u = 0; u < image.width; u++) if (Math.hypot(u - x, v - y) < radius) painted[v * image.width + u] = value;
    draw();
  };
  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [Math.floor(((event.clientX - box.left) / box.width) * canvas.width), Math.floor(((event.clientY - box.top) / box.height) * canvas.height)];
  };
  let last = null;
  const stroke = (event) => {
    if (!last || !mode() || !image) return;
    const [x, y] = at(event);
    const steps = Math.max(1, Math.abs(x - last[0]), Math.abs(y - last[1]));
    for (let n = 1; n <= steps; n++) dab(Math.round(last[0] + ((x - last[0]) * n) / steps), Math.round(last[1] + ((y - last[1]) * n) / steps), erase.checked ? 0 : mode());
    last = [x, y];
  };
  canvas.addEventListener("pointerdown", (event) => {
    if (!mode()) return;
    canvas.setPointerCapture(event.pointerId);
    last = at(event);
    stroke(event);
  });
  canvas.addEventListener("pointermove", stroke);
  ["pointerup", "pointercancel"].forEach((end) => canvas.addEventListener(end, () => (last = null)));
  canvas.addEventListener("keydown", (event) => {
    const [x, y] = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key] ?? [0, 0];
    const paints = event.key === " " || event.key === "Delete";
    if (!mode() || !image || !(x || y || paints)) return;
    event.preventDefault();
    cursor.x = Math.min(image.width - 1, Math.max(0, cursor.x + x));
    cursor.y = Math.min(image.height - 1, Math.max(0, cursor.y + y));
    if (paints) dab(cursor.x, cursor.y, event.key === " " ? mode() : 0);
    else draw();
  });
  ["focus", "blur"].forEach((moment) => canvas.addEventListener(moment, () => draw()));

  const dice = (a, b, c) => {
    let [both, all] = [0, 0];
    for (let i = 0; i < a.length; i++) {
      both += a[i] === c && b[i] === c;
      all += (a[i] === c) + (b[i] === c);
    }
    return all ? (2 * both) / all : null;
  };
  const shownDice = (value) => (value === null ? "none: it is in neither" : value.toFixed(3));
  const draw = () => {
    const c = mode();
    tools.hidden = !c;
    canvas.tabIndex = c ? 0 : -1;
    canvas.setAttribute("role", c ? "application" : "img");
    if (!image) return;
    const { grey, width, height } = image;
    const [palette, alpha, picture] = [colours(), Number(opacity.value), new ImageData(width, height)];
    const [layer, reach] = [c ? painted : labels, Number(brush.value) / 2];
    const atEdge = (mask, i) => mask?.[i] === c && [i - 1, i + 1, i - width, i + width].some((next) => mask[next] !== c);
    referenceLabel.hidden = !truth;
    const atCursor = (i) => document.activeElement === canvas && Math.abs(Math.hypot((i % width) - cursor.x, Math.floor(i / width) - cursor.y) - reach) < 0.5;
    for (let i = 0; i < grey.length; i++) {
      const colour = layer?.[i] ? palette[layer[i] - 1] : null;
      const white = c && ((outline.checked && atEdge(labels, i)) || (reference.checked && atEdge(truth, i)) || atCursor(i));
      const value = (n) => (white ? 255 : colour ? alpha * colour[n] + (1 - alpha) * grey[i] : grey[i]);
      picture.data.set([value(0), value(1), value(2), 255], 4 * i);
    }
    [canvas.width, canvas.height] = [width, height];
    canvas.getContext("2d").putImageData(picture, 0, 0);
    if (!labels) return canvas.setAttribute("aria-label", "a slice, not yet looked at");
    canvas.setAttribute("aria-label", c ? `the slice, to paint the ${NAMES[c]} on; the brush is at column ${cursor.x + 1}, row ${cursor.y + 1}` : "the slice; what the network found is in colour, and said beside it");
    if (c) {
      const found = dice(painted, truth ?? labels, c);
      place.dataset.dice = found;
      if (truth) says.replaceChildren(make("p", {}, `Dice of the ${NAMES[c]} against the reference. The network: ${shownDice(dice(labels, truth, c))}. You: ${shownDice(found)}`));
      else says.replaceChildren(found === null ? `You painted no ${NAMES[c]}, and the network found none.` : `Dice of your ${NAMES[c]} against the network's: ${found.toFixed(3)}`);
    } else says.replaceChildren(...words);
  };

  // A file, or a sample by its place. The sample that is shown already keeps what was painted on it.
  const show = async (chosen) => {
    const button = thumbs[chosen];
    if (button?.getAttribute("aria-pressed") === "true") return;
    const called = button ? `Sample ${chosen + 1}` : chosen.name;
    [image, labels, truth, words] = [null, null, null, []]; // what cannot be read leaves nothing of the last one standing
    thumbs.forEach((each) => each.setAttribute("aria-pressed", "false"));
    canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
    const known = button ? await sample(chosen + 1) : { picture: chosen };
    image = await read(known.picture, called, !button); // what is known of a sample is known of its own pixels
    name = called;
    [truth, painted] = [known.truth ?? null, new Uint8Array(image.grey.length)];
    [cursor.x, cursor.y] = [image.width >> 1, image.height >> 1];
    button?.setAttribute("aria-pressed", "true");
    if (known.network) {
      labels = known.network;
      report(known.sure, null);
    }
    draw();
  };
  const ask = async () => {
    if (!loaded) says.replaceChildren("The network is on its way (some 15 MB, once) …");
    const run = await begin();
    const { probability, milliseconds } = await run(image);
    const drawn = toLabels(probability, image.grey.length);
    labels = about.clean ? keepLargestComponents(drawn.labels, image.width, image.height) : drawn.labels;
    let [total, heart] = [0, 0];
    labels.forEach((c, i) => {
      heart += c > 0;
      total += c ? drawn.sure[i] : 0;
    });
    report(heart ? total / heart : null, milliseconds);
    draw();
  };
  const fail = (error) => says.replaceChildren(make("p", { className: "explorer-error" }, error.message));
  const queue = (step) => (looking = looking.then(step).catch(fail));
  const segment = (first) => {
    const turn = ++shown;
    return queue(async () => {
      if (turn !== shown) return; // the reader has gone on to another
      await first();
      if (!labels) await ask();
    });
  };
  // What the network drew, in words: sure is the mean probability of what it coloured (null: nothing); the time is null
  // for what was drawn when the book was built.
  const report = (sure, milliseconds) => {
    const count = (mask, c) => mask.reduce((total, label) => total + (label === c), 0);
    const areas = [0, 1, 2, 3].map((c) => count(labels, c));
    const beside = (c) => (truth ? ` (reference ${count(truth, c)}, Dice ${dice(labels, truth, c)?.toFixed(2) ?? "none"})` : "");
    const lines = ["rv", "myo", "lv"].map((c, n) => make("li", {}, make("span", { className: `class-${c}` }, NAMES[n + 1]), ` ${areas[n + 1]} pixels${beside(n + 1)}`));
    const found = (c) => labels.reduce((total, label, i) => total + (label === c && truth[i] === c), 0);
    const missed = truth ? [1, 2, 3].filter((c) => count(truth, c) && found(c) < 0.75 * count(truth, c)) : [];
    const confidence = sure === null ? " It found no heart." : ` The probability that the network gives to what it coloured is ${(100 * sure).toFixed(0)} % on average${missed.length ? `, and yet it misses a good part of the ${missed.map((c) => NAMES[c]).join(" and of the ")}` : ""}.`;
    words = [make("ul", {}, ...lines), make("p", {}, `${name}${milliseconds === null ? "" : `, ${milliseconds.toFixed(0)} ms`}.${confidence}${image.shrunk}`)];
    Object.assign(place.dataset, { areas: JSON.stringify(areas) });
    if (milliseconds !== null) Object.assign(place.dataset, { milliseconds, turn: Number(place.dataset.turn ?? 0) + 1 });
    place.labels = labels;
  };

  ["pointerenter", "focusin", "dragenter"].forEach((touch) => place.addEventListener(touch, () => begin().catch(() => {}), { once: true }));
  // A file that is dropped beside the box would replace the page: it is taken as meant for the box.
  window.addEventListener("dragover", (event) => event.preventDefault());
  window.addEventListener("drop", (event) => {
    event.preventDefault();
    const dropped = event.dataTransfer.files[0];
    if (dropped) segment(() => show(dropped));
  });
  const samples = make("div", { className: "model-samples" }, ...thumbs);
  samples.setAttribute("role", "group");
  samples.setAttribute("aria-label", "samples");
  const choice = make("fieldset", {}, make("legend", {}, "Your turn"), ...modes);
  const small = make("p", { className: "explorer-legend" }, `${about.caption} Everything happens in this browser; no picture leaves it. Not for clinical use.`);
  says.replaceChildren("Pick a slice, or drop a PNG of your own here.");
  place.replaceChildren(
    make("div", { className: "model-picture" }, canvas, samples, make("label", {}, "or a PNG of your own ", file)),
    make("div", { className: "explorer-controls" }, says, opacityLabel, choice, tools, small),
  );
  draw();
  if (about.samples) await queue(() => show(0));
}
