// Things to touch. Each stands in a page as <div class="explorer" data-explorer="dice">words for those who
// cannot see it</div>. Two are small and live here: what moves a Dice, and what a run-length code is. The others
// fetch files that were made with the book, and their modules are loaded on the pages that have them.
(() => {
  const script = document.currentScript.src;
  const make = (tag, attributes = {}, ...children) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.append(...children);
    return element;
  };

  // --- Dice: two discs on a grid of 96 x 96 pixels; the measures follow cmrseg.metrics --------------------
  const SIDE = 96;
  const disc = (column, row, radius) => {
    const mask = new Uint8Array(SIDE * SIDE);
    if (radius > 0)
      for (let y = 0; y < SIDE; y++)
        for (let x = 0; x < SIDE; x++) if ((x - column) ** 2 + (y - row) ** 2 < radius ** 2) mask[y * SIDE + x] = 1;
    return mask;
  };
  const border = (mask) => {
    const points = [];
    const at = (x, y) => x >= 0 && y >= 0 && x < SIDE && y < SIDE && mask[y * SIDE + x];
    for (let y = 0; y < SIDE; y++)
      for (let x = 0; x < SIDE; x++)
        if (at(x, y) && !(at(x - 1, y) && at(x + 1, y) && at(x, y - 1) && at(x, y + 1))) points.push([x, y]);
    return points;
  };
  const percentile95 = (values) => {
    const sorted = values.sort((a, b) => a - b);
    const place = 0.95 * (sorted.length - 1);
    const low = Math.floor(place);
    return sorted[low] + (place - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
  };
  const hd95 = (a, b) => {
    const [from, to] = [border(a), border(b)];
    const away = (points, others) =>
      points.map(([x, y]) => Math.sqrt(Math.min(...others.map(([u, v]) => (x - u) ** 2 + (y - v) ** 2))));
    return Math.max(percentile95(away(from, to)), percentile95(away(to, from)));
  };
  const measures = (a, b) => {
    const count = (mask) => mask.reduce((sum, value) => sum + value, 0);
    const [sizeA, sizeB, both] = [count(a), count(b), count(a.map((value, i) => value & b[i]))];
    if (!sizeA && !sizeB) return { dice: null, iou: null, hd95: null };
    return {
      dice: (2 * both) / (sizeA + sizeB),
      iou: both / (sizeA + sizeB - both),
      hd95: sizeA && sizeB ? hd95(a, b) : Math.hypot(SIDE, SIDE),
    };
  };

  const diceExplorer = (place) => {
    const canvas = make("canvas", { width: SIDE, height: SIDE });
    canvas.setAttribute("aria-hidden", "true"); // the controls beside it do the same, and the words say what it shows
    const spoken = make("p", { className: "explorer-says" });
    spoken.setAttribute("aria-live", "polite");
    const control = (name, min, max, value) => {
      const input = make("input", { type: "range", min, max, value, step: 1 });
      input.addEventListener("input", () => draw());
      return [make("label", {}, `${name} `, input), input];
    };
    const [rows, inputs] = [[], {}];
    for (const [key, name, ...range] of [
      ["x", "move to the right", -40, 40, 6],
      ["y", "move down", -40, 40, 0],
      ["b", "radius of the prediction", 0, 40, 20],
      ["a", "radius of the truth", 0, 40, 20],
    ]) {
      const [label, input] = control(name, ...range);
      rows.push(label);
      inputs[key] = input;
    }
    const draw = () => {
      const [x, y, b, a] = ["x", "y", "b", "a"].map((key) => Number(inputs[key].value));
      const [truth, seen] = [disc(47.5, 47.5, a), disc(47.5 + x, 47.5 + y, b)];
      const context = canvas.getContext("2d");
      const picture = context.createImageData(SIDE, SIDE);
      for (let i = 0; i < truth.length; i++) {
        const colour = truth[i] && seen[i] ? [120, 94, 240] : truth[i] ? [0, 160, 120] : seen[i] ? [254, 97, 0] : [128, 128, 128];
        picture.data.set([...colour, truth[i] || seen[i] ? 255 : 40], 4 * i);
      }
      context.putImageData(picture, 0, 0);
      const found = measures(truth, seen);
      place.dataset.measures = JSON.stringify(found);
      spoken.textContent =
        found.dice === null
          ? "Nothing there and nothing predicted: 0/0. The best answer, and no number for it."
          : `Dice ${found.dice.toFixed(3)}, IoU ${found.iou.toFixed(3)}, HD95 ${found.hd95.toFixed(1)} pixels` +
            (a && b ? "." : ": one of the two is empty, so the distance is the diagonal of the picture.");
    };
    const legend = make("p", { className: "explorer-legend" }, "violet: both; green: truth only; orange: prediction only. Drag the prediction, or use the sliders.");
    let held = null; // where the pointer took hold, and where the prediction was
    canvas.addEventListener("pointerdown", (event) => {
      held = [event.clientX, event.clientY, Number(inputs.x.value), Number(inputs.y.value)];
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!held) return;
      const pixel = canvas.getBoundingClientRect().width / SIDE;
      inputs.x.value = held[2] + (event.clientX - held[0]) / pixel;
      inputs.y.value = held[3] + (event.clientY - held[1]) / pixel;
      draw();
    });
    ["pointerup", "pointercancel"].forEach((end) => canvas.addEventListener(end, () => (held = null)));
    place.replaceChildren(canvas, make("div", { className: "explorer-controls" }, ...rows, spoken, legend));
    draw();
  };

  // --- Run-length codes: paint a mask, read its code; give a code, see its mask ----------------------------
  const GRID = 8;
  const encode = (mask) => {
    const runs = [];
    for (let i = 0; i < mask.length; i++) {
      if (!mask[i]) continue;
      if (i && mask[i - 1]) runs[runs.length - 1]++;
      else runs.push(i + 1, 1);
    }
    return runs.join(" ");
  };
  const decode = (code) => {
    const words = code.split(/\s+/).filter(Boolean);
    const numbers = words.map(Number);
    if (words.some((word, i) => !/^\d+$/.test(word) || numbers[i] < 1)) return "Only whole numbers from 1 on.";
    if (numbers.length % 2) return "Numbers come in pairs: a start and a length.";
    const mask = new Uint8Array(GRID * GRID);
    for (let i = 0; i < numbers.length; i += 2) {
      const end = numbers[i] + numbers[i + 1] - 1;
      if (end > mask.length) return `The run from ${numbers[i]} leaves the picture of ${mask.length} pixels.`;
      for (let n = numbers[i]; n <= end; n++) {
        if (mask[n - 1]) return `Pixel ${n} is in two runs.`;
        mask[n - 1] = 1;
      }
    }
    return mask;
  };

  const rleExplorer = (place) => {
    let mask = new Uint8Array(GRID * GRID); // column by column: pixel n stands in column n / 8, row n % 8
    [18, 19, 20, 25, 26, 27, 28, 29, 34, 35, 36].forEach((n) => (mask[n] = 1));
    const board = make("div", { className: "explorer-board" });
    const says = make("p", { className: "explorer-says" });
    says.setAttribute("aria-live", "polite");
    const field = make("input", { type: "text", spellcheck: false });
    const cells = Array.from(mask, (_, n) => {
      const name = `row ${(n % GRID) + 1}, column ${Math.floor(n / GRID) + 1}, pixel ${n + 1}`;
      const cell = make("button", { type: "button", textContent: n + 1, title: name });
      cell.setAttribute("aria-label", name);
      cell.addEventListener("click", () => {
        mask[n] = 1 - mask[n];
        show();
      });
      cell.addEventListener("keydown", (event) => {
        const [row, column] = [n % GRID, Math.floor(n / GRID)];
        const [down, right] = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] }[event.key] ?? [];
        if (down === undefined) return;
        event.preventDefault();
        const inside = (place) => Math.min(GRID - 1, Math.max(0, place));
        cells[inside(column + right) * GRID + inside(row + down)].focus();
      });
      cell.addEventListener("focus", () => cells.forEach((each) => (each.tabIndex = each === cell ? 0 : -1)));
      cell.tabIndex = n ? -1 : 0; // the board is one stop of the tab key; arrows move within it
      cell.style.gridRow = (n % GRID) + 1;
      cell.style.gridColumn = Math.floor(n / GRID) + 1;
      return cell;
    });
    const show = (typed = false) => {
      cells.forEach((cell, n) => cell.setAttribute("aria-pressed", String(Boolean(mask[n]))));
      if (!typed) field.value = encode(mask);
      field.setAttribute("aria-invalid", "false");
      const count = (number, what) => `${number} ${what}${number === 1 ? "" : "s"}`;
      says.textContent = `${count(mask.reduce((sum, value) => sum + value, 0), "pixel")} in ${count(encode(mask).split(" ").filter(Boolean).length / 2, "run")}.`;
    };
    field.addEventListener("input", () => {
      const found = decode(field.value);
      if (typeof found === "string") {
        field.setAttribute("aria-invalid", "true");
        says.textContent = found;
      } else {
        mask = found;
        show(true);
      }
    });
    board.append(...cells);
    place.replaceChildren(board, make("div", { className: "explorer-controls" }, make("label", {}, "the code ", field), says));
    show();
  };

  const kinds = { dice: diceExplorer, rle: rleExplorer };
  const modules = { model: "model.js", experiments: "records.js", scoreboard: "records.js" };
  const fetched = async (place, kind) => {
    const missing = (words) => make("p", { className: "missing-part" }, words);
    if (location.protocol === "file:") return place.append(missing("A page opened from a folder may not load what this needs. Serve the book: python -m http.server -d _build/html"));
    try {
      await (await import(new URL(modules[kind], script)))[kind](place, make);
    } catch (error) {
      console.warn(error);
      place.replaceChildren(missing("What belongs here could not be loaded. Load the page again to try once more."));
    }
  };
  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll(".explorer[data-explorer]").forEach((place) => {
      const kind = place.dataset.explorer;
      place.setAttribute("role", "group");
      if (kind in modules) fetched(place, kind);
      else kinds[kind]?.(place);
    });
  });
})();
