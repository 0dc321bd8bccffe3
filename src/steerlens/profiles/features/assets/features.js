"use strict";
// Data comes from scripts beside the page, which call `steerlensFeatures.index` and `.chunk`.
const steerlensFeatures = (() => {
  const $ = (id) => document.getElementById(id);
  const ROW = 64;
  const chunks = new Map();
  const waiting = new Map();
  const sheets = new Map();
  let meta = null;
  let table = null;
  let order = [];
  let chosen = null;

  const make = (tag, properties = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name.startsWith("aria") || name === "role") element.setAttribute(name.replace(/^aria([A-Z])/, (_, letter) => `aria-${letter.toLowerCase()}`), value);
      else element[name] = value;
    }
    element.append(...children);
    return element;
  };
  const number = (value, digits = 3) => (value === null || value === undefined ? "–" : Number(value).toPrecision(digits).replace(/\.?0+(e|$)/, "$1").replace("-", "−"));
  const percent = (share) => `${number(100 * share, 2)} %`;

  const sheetOf = (picture) => {
    const place = Math.floor(picture / meta.row ** 2);
    if (!sheets.has(place)) {
      const image = new Image();
      const ready = new Promise((resolve) => { image.onload = () => resolve(image); });
      image.src = `page/pictures-${String(place).padStart(2, "0")}.webp`;
      sheets.set(place, ready);
    }
    return sheets.get(place);
  };

  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

  const draw = (canvas, picture, heat) => {
    canvas.width = canvas.height = meta.side * 2;
    sheetOf(picture).then((sheet) => {
      const place = picture % meta.row ** 2;
      const context = canvas.getContext("2d");
      const side = canvas.width;
      context.drawImage(sheet, (place % meta.row) * meta.side, Math.floor(place / meta.row) * meta.side, meta.side, meta.side, 0, 0, side, side);
      if (!heat || !meta.grid) return;
      // What is not active is dimmed; the strongest patches are framed.
      const [rows, columns] = meta.grid;
      const values = bytes(heat);
      for (let row = 0; row < rows; row += 1) {
        for (let column = 0; column < columns; column += 1) {
          const share = values[meta.first + row * columns + column] / 255;
          context.fillStyle = `rgba(20, 24, 32, ${0.6 * (1 - share)})`;
          context.fillRect((column * side) / columns, (row * side) / rows, Math.ceil(side / columns), Math.ceil(side / rows));
          if (share > 0.5) {
            context.strokeStyle = `rgba(255, 160, 30, ${share})`;
            context.lineWidth = 2;
            context.strokeRect((column * side) / columns + 1, (row * side) / rows + 1, side / columns - 2, side / rows - 2);
          }
        }
      }
    });
    return canvas;
  };

  // The strongest token may be none of the patches: the class token or a register.
  const elsewhere = (heat) => {
    if (!meta.grid) return "";
    const values = bytes(heat);
    const place = values.indexOf(255) - meta.first;
    return place < 0 || place >= meta.grid[0] * meta.grid[1] ? "on a token that is no patch" : "";
  };

  const wordsOf = (feature) => {
    const texts = table.texts[feature];
    if (texts.length) return texts.join(", ");
    return [...new Set(table.tops[feature].map((picture) => meta.concepts[picture]))].slice(0, 3).join(", ");
  };

  const choose = () => {
    const sought = $("find").value.trim().toLowerCase();
    const by = $("sort").value;
    const count = table.density.length;
    const all = Array.from({ length: count }, (_, feature) => feature);
    const matches = (feature) => {
      if (/^#?\d+$/.test(sought)) return String(feature) === sought.replace("#", "");
      return table.texts[feature].some((text) => text.toLowerCase().includes(sought)) || table.tops[feature].some((picture) => meta.concepts[picture].toLowerCase().includes(sought));
    };
    order = all.filter((feature) => ($("dead").checked || table.pictures[feature] > 0 || String(feature) === sought) && (!sought || matches(feature)));
    const value = (feature) => (by === "number" ? -feature : table[by][feature] ?? -Infinity);
    const sign = $("rising").checked ? -1 : 1;
    order.sort((a, b) => sign * (value(b) - value(a)) || a - b);
    $("count").textContent = `${order.length} of ${count} features`;
    $("rows").style.height = `${order.length * ROW}px`;
    $("list").scrollTop = 0;
    paint();
  };

  const rowOf = (feature, place) => {
    const thumbs = make("span", { className: "thumbs" });
    for (const picture of table.tops[feature].slice(0, 4)) thumbs.append(draw(make("canvas", { title: meta.concepts[picture] }), picture, null));
    const figures = make("span", { className: "figures" }, percent(table.density[feature]), make("br"), `effect ${number(table.effect[feature], 2)}`);
    const row = make("div", { className: "feature", role: "option", id: `row-${feature}` }, make("b", { textContent: feature }), thumbs, make("span", { className: "words", textContent: wordsOf(feature) }), figures);
    row.setAttribute("aria-selected", String(feature === chosen));
    row.style.top = `${place * ROW}px`;
    row.addEventListener("click", () => { location.hash = `f=${feature}`; });
    return row;
  };

  // Only the rows on screen exist, however many features there are.
  const paint = () => {
    const list = $("list");
    const first = Math.max(0, Math.floor(list.scrollTop / ROW) - 4);
    const last = Math.min(order.length, Math.ceil((list.scrollTop + list.clientHeight) / ROW) + 4);
    const rows = [];
    for (let place = first; place < last; place += 1) rows.push(rowOf(order[place], place));
    $("rows").replaceChildren(...rows);
  };

  const load = (feature) => {
    const place = Math.floor(feature / meta.chunk);
    if (chunks.has(place)) return Promise.resolve(chunks.get(place)[feature - place * meta.chunk]);
    return new Promise((resolve) => {
      waiting.set(place, [...(waiting.get(place) ?? []), () => resolve(chunks.get(place)[feature - place * meta.chunk])]);
      if (waiting.get(place).length === 1) document.head.append(make("script", { src: `page/features-${String(place).padStart(5, "0")}.js` }));
    });
  };

  const pairs = (title, rows, format, link) => {
    const items = rows.map(([name, value]) => {
      const shown = link ? make("button", { type: "button", textContent: name, onclick: () => { location.hash = `f=${name}`; } }) : make("i", { textContent: name });
      return make("li", {}, shown, make("span", { textContent: format(value) }));
    });
    return make("div", {}, make("h3", { textContent: title }), items.length ? make("ol", {}, ...items) : make("p", { className: "quiet small", textContent: "none" }));
  };

  const decodedFigure = (title, decoded) => make("figure", {}, make("img", { src: decoded[0], alt: `${title}, decoded`, className: "pixels" }), make("figcaption", {}, make("b", { textContent: title }), make("span", { className: "quiet", textContent: `fidelity ${number(decoded[1], 2)}` })));

  const show = async (feature) => {
    chosen = feature;
    paint();
    const data = await load(feature);
    if (chosen !== feature) return;
    const tops = data.tops.map(([picture, value, heat]) => make("figure", {}, draw(make("canvas", { role: "img", ariaLabel: `${meta.concepts[picture]}, where it is active` }), picture, heat), make("figcaption", {}, meta.concepts[picture], " ", make("span", { className: "quiet", textContent: `${number(value)} ${elsewhere(heat)}` }))));
    const highest = Math.max(1, ...data.histogram);
    const bars = data.histogram.map((count, bin) => {
      const bar = make("span", { title: `${count} activations, ${number(meta.edges[bin], 2)} to ${number(meta.edges[bin + 1], 2)}` });
      bar.style.height = `${(100 * count) / highest}%`;
      return bar;
    });
    const decoded = [["alone", data.alone], ["added to the mean", data.added]].filter(([, image]) => image).map(([title, image]) => decodedFigure(title, image));
    const texts = data.texts.map(([text, excess]) => make("li", { className: excess > meta.chance ? "" : "chance" }, make("i", { textContent: text }), make("span", { textContent: number(excess, 2) })));
    $("detail").replaceChildren(
      make("h2", {}, `${meta.name} ${feature}`, make("small", { textContent: data.pictures ? `active on ${data.pictures} pictures, ${percent(data.density)} of tokens` : "never active on these pictures" })),
      ...(tops.length ? [make("h3", { textContent: "Top pictures" }), make("div", { className: "tops" }, ...tops)] : []),
      make("div", { className: "cols" },
        make("div", {}, make("h3", { textContent: "Decoded" }), decoded.length ? make("div", { className: "decoded" }, ...decoded) : make("p", { className: "quiet small", textContent: "not decoded; --decode sets how many are" })),
        make("div", {}, make("h3", { textContent: "Activations" }), make("div", { className: "histogram", role: "img", ariaLabel: "Histogram of activations" }, ...bars), make("div", { className: "axis" }, make("span", { textContent: number(meta.edges[0], 2) }), make("span", { textContent: number(meta.edges.at(-1), 2) })), make("p", { className: "small", textContent: `mean ${number(data.mean)}, largest ${number(data.largest)}; ablation moves the embedding by ${number(data.effect)}${data.control === null ? "" : ` (a random direction of equal size: ${number(data.control)})`}` }))),
      make("div", { className: "cols" },
        make("div", {}, make("h3", { textContent: "Texts" }), texts.length ? make("ol", {}, ...texts) : make("p", { className: "quiet small", textContent: "none" }), ...(data.names ? [make("p", { className: "small", textContent: data.names })] : [])),
        pairs("Similar features", data.similar, (cosine) => number(cosine, 2), true),
        pairs("Heads that write it: measured", data.measured, (value) => number(value, 2), false),
        pairs("Heads that write it: by weights", data.weights, (value) => number(value, 2), false)));
  };

  const follow = () => {
    const match = /^#f=(\d+)$/.exec(location.hash);
    if (match && Number(match[1]) < table.density.length) show(Number(match[1]));
  };

  const move = (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step || !order.length) return;
    event.preventDefault();
    const place = Math.min(order.length - 1, Math.max(0, order.indexOf(chosen) + step));
    const list = $("list");
    list.scrollTop = Math.min(place * ROW, Math.max(list.scrollTop, (place + 1) * ROW - list.clientHeight));
    location.hash = `f=${order[place]}`;
  };

  return {
    index(given, rows) {
      meta = given;
      table = rows;
      for (const id of ["find", "sort", "rising", "dead"]) $(id).addEventListener("input", choose);
      $("list").addEventListener("scroll", () => requestAnimationFrame(paint));
      $("list").addEventListener("keydown", move);
      addEventListener("hashchange", follow);
      choose();
      follow();
      if (chosen === null && order.length) show(order[0]);
    },
    chunk(place, rows) {
      chunks.set(place, rows);
      for (const resolve of waiting.get(place) ?? []) resolve();
      waiting.delete(place);
    },
  };
})();
