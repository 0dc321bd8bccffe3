"use strict";
(() => {
  const $ = (id) => document.getElementById(id);
  const read = (id) => JSON.parse($(id).textContent);
  const meta = read("steerlens-meta");
  const wide = window.matchMedia("(min-width: 1180px)");
  const pixelSide = 64;
  const state = { picture: 0, site: null, mode: null, show: "colours" };
  let data = null;
  let attention = null;

  // Small helpers. Text only ever enters the page as text, never as markup.
  const el = (tag, attributes = {}, ...children) => {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value === null || value === undefined || value === false) continue;
      if (name === "class") node.className = value;
      else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  };
  const fixed = (value, digits = 2) =>
    value === null || value === undefined ? "–" : value.toFixed(digits).replace(/^-(?=0\.?0*$)/, "").replace("-", "−");
  const percent = (value, digits = 0) => (value === null || value === undefined ? "–" : `${fixed(100 * value, digits)} %`);
  const ordinal = (n) => n + (["th", "st", "nd", "rd"][n % 100 > 10 && n % 100 < 14 ? 0 : n % 10] || "th");
  const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
  const colour = (value, [low, high], ramp) => {
    const place = Math.min(Math.max((value - low) / (high - low), 0), 1) * (ramp.length - 1);
    const index = Math.min(Math.floor(place), ramp.length - 2);
    const [a, b] = [rgb(ramp[index]), rgb(ramp[index + 1])];
    return `rgb(${a.map((channel, i) => Math.round(channel + (b[i] - channel) * (place - index))).join(",")})`;
  };
  const target = () => (data.target === "the input itself" ? "the input" : data.target);
  const lenses = () => Object.keys(meta.lenses);
  const headKey = (layer, head) => `head.${layer}.${head}`;

  const picture = (src, alt, extra = "") => {
    if (!src) return el("span", { class: `missing ${extra}`, role: "img", "aria-label": `${alt}: in the run's files only` }, "in the run's files");
    const image = el("img", { src, alt, class: extra, decoding: "async" });
    image.addEventListener("load", () => image.classList.toggle("pixels", Math.max(image.naturalWidth, image.naturalHeight) <= pixelSide));
    return image;
  };
  const figure = (image, ...lines) =>
    el("figure", {}, image, el("figcaption", {}, ...lines.filter(Boolean).map((line) => (line instanceof Node ? line : el("span", {}, line)))));

  // The score whose control the marks refer to: the Steering Lens's, or the Total Lens's in a run without it.
  const steered = (site) => (meta.lenses.steering ? site?.steering : site?.total);

  // What a cell of the map can show. Every mode has one fixed scale for the whole run.
  const modes = {
    steering: { name: "Steering Lens", lens: "steering", scale: "similarity", ramp: "sequential", value: (s) => s?.steering?.similarity },
    diffusion: { name: "Diffusion Lens", lens: "diffusion", scale: "similarity", ramp: "sequential", value: (s) => s?.diffusion?.similarity },
    total: { name: "Total Lens", lens: "total", scale: "similarity", ramp: "sequential", value: (s) => s?.total?.similarity },
    effect: { name: "Direct against total", scale: "effect", ramp: "diverging", value: (s) => s?.total?.changeCosine },
    undecoded: { name: "Steering, not decoded", scale: "similarity", ramp: "sequential", value: (s, i) => data.undecoded?.[i] },
    margin: { name: "Above control", scale: "margin", ramp: "diverging", value: (s) => { const score = steered(s); return score === undefined || score.control === null ? undefined : score.similarity - score.control; } },
    write: { name: "Write norm", scale: "write", ramp: "sequential", value: (s, i) => data.writeNorms[i], digits: 3 },
    direct: { name: "Direct similarity", scale: "direct", ramp: "diverging", value: (s, i) => data.direct[i] },
  };
  const explained = {
    steering: () => `similarity of each head's Steering Lens picture with ${target()}`,
    diffusion: () => `similarity of each head's Diffusion Lens picture with ${target()}`,
    total: () => `similarity of each head's Total Lens picture with ${target()}`,
    effect: () => "cosine between the direct and the total change of the embedding, before decoding; 1: the direct effect is all there is",
    undecoded: () => `similarity of each head's steered embedding with ${target()}, before decoding; known for all heads`,
    margin: () => `${meta.lenses.steering ? "Steering Lens" : "Total Lens"} similarity minus that of the head's own control`,
    write: () => "norm of the head's write as a share of the final residual's (means over width removed)",
    direct: () => "cosine of the head's write with the final residual (means over width removed)",
  };

  function available() {
    const sites = Object.values(data.sites).filter((site) => site.kind === "head");
    return Object.keys(modes).filter((key) => {
      if (key === "write" || key === "direct") return true;
      if (key === "undecoded") return Boolean(data.undecoded) && Boolean(meta.lenses.steering);
      return sites.some((site) => { const value = modes[key].value(site); return value !== undefined && value !== null; });
    });
  }

  // Where only some heads were decoded, the map opens with the scores of all of them.
  const firstMode = (keys) => (meta.selection && keys.includes("undecoded") ? "undecoded" : keys[0]);

  // ---- the input
  function drawOpening() {
    const label = `${data.name}, ${data.size[0]} × ${data.size[1]}`;
    $("pair").replaceChildren(
      figure(picture(data.input, `Input picture ${data.name}`, "large"), el("b", {}, "Input"), label, data.note || null),
      ...data.clean.slice(0, 3).map((cell) =>
        figure(picture(cell.src, `${meta.words.Clean} of ${data.name}, ${meta.words.seed} ${cell.seed + Number(meta.words.first)}`, "large"), el("b", {}, meta.words.Clean),
          `${meta.words.fidelity} ${fixed(cell.fidelity)}${data.clean.length > 1 ? ` · ${meta.words.seed} ${cell.seed + Number(meta.words.first)}` : ""}`,
          data.target === "the input itself" ? null : `similarity ${fixed(cell.similarity)}`)));
    const said = data.sentences.map((sentence) => el("p", {}, sentence));
    if (data.target !== "the input itself")
      said.unshift(el("p", {}, `Similarities on this page are with ${data.target}. That of the input itself is ${fixed(data.targetSimilarity)}.`));
    if (data.leftOut) said.push(el("p", { class: "quiet" }, `${data.leftOut} ${meta.words.pictures} of this input are left out to keep the page small; the run's parquet files contain them.`));
    $("said").replaceChildren(...said);
    document.querySelectorAll(".target").forEach((node) => { node.textContent = target(); });
  }

  const bar = (value) => {
    const inner = el("i");
    inner.style.width = `${100 * Math.min(Math.max(value ?? 0, 0), 1)}%`;
    return el("span", { class: "bar", "aria-hidden": "true" }, inner);
  };
  const card = (key, lens, ...lines) => {
    const site = data.sites[key];
    const cell = site[lens].pictures[0];
    return el("button", { class: "card", type: "button", "data-site": key, "aria-label": `${site.label}, ${meta.lenses[lens] || lens}, similarity ${fixed(site[lens].similarity)}: show details`, onclick: () => choose(key, true) },
      picture(cell?.src, ""), ...lines.filter(Boolean));
  };
  const strip = (cards) => {
    const box = el("div", { class: "strip" }, ...cards);
    box.style.setProperty("--n", Math.min(12, cards.length));
    return box;
  };
  const line = (text, kind = "") => el("span", { class: `line ${kind}` }, text);

  function drawStrip() {
    const keys = Object.keys(data.sites).filter((key) => data.sites[key].kind === "resid_post" && data.sites[key].diffusion);
    keys.sort((a, b) => data.sites[a].layer - data.sites[b].layer);
    // A single layer is the clean reconstruction, which is shown above.
    $("strip-section").hidden = keys.length < 2;
    $("strip").replaceChildren(strip(keys.map((key) => {
      const site = data.sites[key];
      return card(key, "diffusion", line(`${site.layer}`, "name"), bar(site.diffusion.similarity), line(fixed(site.diffusion.similarity), "number"), line(`${meta.words.fid} ${fixed(site.diffusion.fidelity)}`, "number"), site.labels.length ? line(site.labels[0][0], "label") : null);
    })));
  }

  // ---- the map
  function drawMap() {
    const keys = available();
    if (!keys.includes(state.mode)) state.mode = firstMode(keys);
    const mode = modes[state.mode];
    const pictures = state.show === "pictures" && mode.lens;
    const radio = (name, options, chosen, change) => el("fieldset", { class: "radios" }, el("legend", { class: "sr" }, name),
      ...options.map(([key, text]) => el("label", {}, el("input", { type: "radio", name: `radio-${name}`, value: key, checked: key === chosen, onchange: () => change(key) }), el("span", {}, text))));
    const focused = document.activeElement?.closest("#map-controls") ? [document.activeElement.name, document.activeElement.value] : null;
    $("map-controls").replaceChildren(
      radio("map", keys.map((key) => [key, modes[key].name]), state.mode, (key) => { state.mode = key; drawMap(); keep(); }),
      ...(mode.lens ? [radio("show", [["colours", "Colours"], ["pictures", "Pictures"]], state.show, (key) => { state.show = key; drawMap(); })] : []));
    if (focused) $("map-controls").querySelector(`input[name="${focused[0]}"][value="${focused[1]}"]`)?.focus();

    const scale = meta.scales[mode.scale];
    const ramp = meta[mode.ramp];
    const current = data.sites[state.site]?.kind === "head" ? state.site : null;
    const grid = el("div", { class: `grid${pictures ? " pictures" : ""}`, role: "grid", "aria-label": `Map of heads: ${explained[state.mode]()}`, "aria-rowcount": meta.heads, "aria-colcount": meta.layers, onkeydown: move });
    grid.style.setProperty("--layers", meta.layers);
    const every = Math.ceil(meta.layers / 24);
    const tabbed = current || firstHead();
    for (let head = 0; head < meta.heads; head += 1) {
      const row = el("div", { class: "row", role: "row" }, el("span", { class: "tick", role: "rowheader", "aria-label": `Head ${head}` }, `H${head}`));
      for (let layer = 0; layer < meta.layers; layer += 1) row.append(mapCell(layer, head, mode, scale, ramp, pictures, tabbed));
      grid.append(row);
    }
    grid.append(el("div", { class: "row", "aria-hidden": "true" }, el("span", { class: "tick" }),
      ...Array.from({ length: meta.layers }, (_, layer) => el("span", { class: "tick below" }, layer % every ? "" : `${layer ? "" : "L"}${layer}`))));
    if (data.counts) grid.append(countsRow());
    $("map").replaceChildren(grid);
    drawLegend(mode, scale, ramp, pictures);
    markChosen();
  }

  function firstHead() {
    const key = (data.top.steering || data.top.total || data.top.diffusion || [])[0];
    return key || headKey(0, 0);
  }

  function mapCell(layer, head, mode, scale, ramp, pictures, tabbed) {
    const key = headKey(layer, head);
    const site = data.sites[key];
    const value = mode.value(site, layer * meta.heads + head);
    const known = value !== undefined && value !== null;
    const steering = steered(site);
    const strong = steering?.strong;
    const words = [`Layer ${layer}, head ${head}`, known ? `${mode.name} ${fixed(value, mode.digits)}` : "not looked at",
      steering?.control !== null && steering?.control !== undefined ? `control ${fixed(steering.control)}, ${strong ? "beats nearly all controls" : steering.beats ? "beats its control" : "does not beat its control"}` : null];
    const cell = el("button", { class: "cell", type: "button", role: "gridcell", "data-site": key, "data-layer": layer, "data-head": head, tabindex: key === tabbed ? 0 : -1, "aria-label": words.filter(Boolean).join("; "), title: `L${layer}H${head}: ${known ? fixed(value, mode.digits) : "not looked at"}`, onclick: () => choose(key, true) });
    if (!known) cell.classList.add("unknown");
    else if (pictures) cell.append(picture(site[mode.lens].pictures[0]?.src, ""));
    else {
      cell.style.background = colour(value, scale, ramp);
      if (value < 0) cell.append(el("span", { class: "minus", "aria-hidden": "true" }, "−"));
    }
    if (known && steering?.beats) cell.append(el("span", { class: `mark${strong ? " strong" : ""}`, "aria-hidden": "true" }));
    return cell;
  }

  function countsRow() {
    const row = el("div", { class: "row counts", role: "presentation" }, el("span", { class: "tick", title: "heads that beat their control" }, "beat"));
    for (let layer = 0; layer < meta.layers; layer += 1) {
      let beaten = 0, compared = 0;
      for (let head = 0; head < meta.heads; head += 1) {
        const steering = steered(data.sites[headKey(layer, head)]);
        if (steering && steering.beats !== null) { compared += 1; beaten += steering.beats ? 1 : 0; }
      }
      row.append(el("span", { class: "tick below", title: `layer ${layer}: ${beaten} of ${compared} heads beat their control` }, compared ? `${beaten}` : ""));
    }
    return row;
  }

  function drawLegend(mode, scale, ramp, pictures) {
    const parts = [];
    if (pictures) parts.push(el("span", {}, "Decoded picture of every head, unchanged."));
    else {
      const strip = el("span", { class: "ramp", "aria-hidden": "true" });
      strip.style.background = `linear-gradient(to right, ${ramp.join(",")})`;
      parts.push(el("span", { class: "ramp-box" }, `${fixed(scale[0], scale[0] % 1 ? 2 : 0)}`, strip, `${fixed(scale[1], scale[1] % 1 ? 2 : 0)}`),
        el("span", {}, `${explained[state.mode]()}; one scale for all inputs${mode.scale === "similarity" ? " and all lenses" : ""}; values outside it take the colour of its end.`));
    }
    if (data.counts) parts.push(el("span", {}, el("span", { class: "mark inline" }), ` ${data.counts.lens} beats the head's own control `, ...(data.counts.strong === null ? [] : [el("span", { class: "mark strong inline" }), ` beats at least ${percent(meta.strong)} of all controls`])));
    parts.push(el("span", { class: "quiet keys" }, "Arrow keys move, Enter selects."));
    $("legend").replaceChildren(...parts);
    const counts = data.counts;
    $("map-said").textContent = counts
      ? `${counts.beats} of ${counts.heads} heads beat their own control, a random direction steered equally hard${counts.chance === null ? "" : ` (about ${counts.chance} would by chance)`}${counts.strong === null ? "" : `; ${counts.strong} beat at least ${percent(meta.strong)} of all controls${counts.strongChance === null ? "" : ` (about ${fixed(counts.strongChance, 1)} by chance)`}`}. The row under the map counts heads that beat their own control, layer by layer.`
      : "Each square is one attention head. Select a head to see its pictures, numbers and attention.";
  }

  function move(event) {
    const cell = event.target.closest(".cell");
    if (!cell) return;
    const layer = Number(cell.dataset.layer), head = Number(cell.dataset.head);
    const to = { ArrowRight: [layer + 1, head], ArrowLeft: [layer - 1, head], ArrowDown: [layer, head + 1], ArrowUp: [layer, head - 1], Home: [0, head], End: [meta.layers - 1, head], PageUp: [layer, 0], PageDown: [layer, meta.heads - 1] }[event.key];
    if (!to) return;
    event.preventDefault();
    const next = $("map").querySelector(`[data-layer="${to[0]}"][data-head="${to[1]}"]`);
    if (!next) return;
    cell.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
    // Beside the map the panel follows the focus; over the page it waits for a choice.
    if (wide.matches) choose(next.dataset.site, false);
  }

  // ---- grids, components, labels
  function drawTop() {
    const shown = lenses().filter((lens) => data.top[lens]?.length);
    $("top-section").hidden = shown.length === 0;
    $("top").replaceChildren(...shown.map((lens) => {
      const first = data.clean[0];
      const reference = first ? [el("div", { class: "card still" }, picture(data.view, `Input ${data.name}, as the encoder saw it`), line("input", "name")), el("div", { class: "card still" }, picture(first.src, meta.words.Clean), line(meta.words.short, "name"), line(`similarity ${fixed(first.similarity)}`, "number"), line(`${meta.words.fidelity} ${fixed(first.fidelity)}`, "number"))] : [];
      return el("div", { class: "lens-row" }, el("h3", {}, meta.lenses[lens]),
        el("div", { class: "cards" }, ...reference, ...data.top[lens].slice(0, meta.k).map((key) => {
          const score = data.sites[key][lens];
          return card(key, lens, line(data.sites[key].label, "name"), line(`similarity ${fixed(score.similarity)}`, "number"), line(`${meta.words.undecoded} ${fixed(score.steered)}`, "number"), line(`${meta.words.fidelity} ${fixed(score.fidelity)}`, "number"),
            score.control === null ? null : line(`control ${fixed(score.control)}`, "number"), meta.seeds.length > 1 ? line(`agreement ${fixed(score.agreement)}`, "number") : null);
        })));
    }));
  }

  // The same components under the direct lens, under the total lens, and without them: a column each.
  function drawEffects() {
    const kinds = { head: "Heads", attn_out: "Attention outputs", mlp_out: "MLP outputs", vector: "Your own directions", group: "Groups", region: "What heads read from regions" };
    const rows = [["steering", "Direct: everything after it frozen"], ["total", "Total: everything after it reacts"], ["ablation", "Without it"]];
    const blocks = [];
    for (const [kind, title] of Object.entries(kinds)) {
      const keys = (kind === "head" ? data.top.total || [] : Object.keys(data.sites).filter((key) => data.sites[key].kind === kind && data.sites[key].total)).slice(0, meta.k);
      if (!keys.length) continue;
      blocks.push(el("h3", {}, title));
      for (const [lens, name] of rows) {
        if (!keys.some((key) => data.sites[key][lens])) continue;
        const first = data.clean[0];
        const clean = first ? el("div", { class: "card still" }, picture(first.src, meta.words.Clean), line(meta.words.short, "name"), line(`similarity ${fixed(first.similarity)}`, "number")) : null;
        blocks.push(el("div", { class: "lens-row" }, el("p", { class: "row-name" }, name), el("div", { class: "cards effects" }, ...[clean].filter(Boolean), ...keys.map((key) => {
          const site = data.sites[key], score = site[lens];
          if (!score) return el("div", { class: "card still" }, line(site.label, "name"), line(`not ${meta.words.decoded}`, "number"));
          return card(key, lens, line(site.label, "name"), line(`similarity ${fixed(score.similarity)}`, "number"), score.control === null ? null : line(`control ${fixed(score.control)}`, "number"),
            lens === "steering" ? null : line(`cosine ${fixed(score.directCosine)}`, "number"), lens === "steering" ? null : line(`changes ${fixed(score.changeCosine)}`, "number"));
        }))));
      }
    }
    $("effects-section").hidden = blocks.length === 0;
    $("effects").replaceChildren(...blocks);
  }

  function drawOther() {
    const names = { attn_out: "Attention output", mlp_out: "MLP output", vector: "Your own directions", group: "Groups", region: "What heads read from regions", resid_pre: "Residual before each layer", resid_mid: "Residual between attention and MLP", embed: "Token embedding" };
    const blocks = [];
    for (const [kind, title] of Object.entries(names))
      for (const lens of lenses()) {
        const keys = Object.keys(data.sites).filter((key) => data.sites[key].kind === kind && data.sites[key][lens]);
        if (keys.length) blocks.push(el("div", { class: "lens-row" }, el("h3", {}, `${title}, ${meta.lenses[lens]}`), strip(keys.map((key) => {
          const site = data.sites[key], score = site[lens];
          return card(key, lens, line(kind === "vector" ? site.label.slice(7) : site.layer < 0 ? site.label : `${site.layer}`, "name"), bar(score.similarity), line(`${fixed(score.similarity)}${score.control === null ? "" : ` / ${fixed(score.control)}`}`, "number"), line(`${meta.words.fid} ${fixed(score.fidelity)}`, "number"));
        })), keys.some((key) => data.sites[key][lens].control !== null) ? el("p", { class: "quiet small" }, "Similarity / that of the control.") : null));
      }
    $("other-section").hidden = blocks.length === 0;
    $("other").replaceChildren(...blocks);
  }

  const labelRow = (name, labels) => el("tr", {}, el("th", { scope: "row" }, name), ...labels.map(([text, score]) => el("td", {}, text, " ", el("span", { class: "quiet" }, fixed(score)))));
  function drawLabels() {
    const width = Math.max(...data.layerLabels.map((labels) => labels.length), data.embedLabels.length);
    $("labels-section").hidden = width <= 0;
    if (width <= 0) return;
    $("labels").replaceChildren(el("table", { class: "labels" },
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "after"), ...Array.from({ length: width }, (_, i) => el("th", { scope: "col" }, ordinal(i + 1))))),
      el("tbody", {}, data.embedLabels.length ? labelRow("embedding", data.embedLabels) : null, ...data.layerLabels.map((labels, layer) => labelRow(`layer ${layer}`, labels)))));
  }

  // ---- the panel
  function choose(key, byHand) {
    const site = data.sites[key] || bareHead(key);
    if (!site) return;
    state.site = key;
    drawDetail(key, site, byHand);
    markChosen();
    keep();
  }

  function bareHead(key) {
    const match = /^head\.(\d+)\.(\d+)$/.exec(key);
    if (!match || Number(match[1]) >= meta.layers || Number(match[2]) >= meta.heads) return null;
    return { label: `L${match[1]}H${match[2]}`, kind: "head", layer: Number(match[1]), head: Number(match[2]), labels: [] };
  }

  function markChosen() {
    // One cell of the map is in the tab order: the chosen one, if it is a head.
    const cells = [...document.querySelectorAll('[role="gridcell"]')];
    if (cells.some((cell) => cell.dataset.site === state.site)) cells.forEach((cell) => { cell.tabIndex = cell.dataset.site === state.site ? 0 : -1; });
    document.querySelectorAll("[data-site]").forEach((node) => {
      const chosen = node.dataset.site === state.site;
      node.classList.toggle("chosen", chosen);
      if (node.getAttribute("role") === "gridcell") node.setAttribute("aria-selected", String(chosen));
      else if (node.tagName === "BUTTON") node.setAttribute("aria-pressed", String(chosen));
    });
  }

  function closeDetail() {
    const key = state.site;
    state.site = null;
    $("detail").hidden = true;
    document.body.classList.remove("open");
    markChosen();
    keep();
    $("map").querySelector(`[data-site="${CSS.escape(key || "")}"]`)?.focus();
  }

  function drawDetail(key, site, byHand) {
    const panel = $("detail");
    const rankLens = ["steering", "total", "diffusion"].find((lens) => site[lens]) || "diffusion";
    const rank = (data.top[rankLens] || []).indexOf(key);
    const facts = [];
    if (rank >= 0) facts.push(`${ordinal(rank + 1)} of ${data.top[rankLens].length} heads under the ${meta.lenses[rankLens]}`);
    const compared = steered(site);
    if (compared && compared.beats !== null) facts.push(compared.beats ? "beats its control" : "does not beat its control");
    if (site.steering && site.steering.beatsFoil !== null) facts.push(site.steering.beatsFoil ? "beats its write for another input" : "does not beat its write for another input");
    const step = (by, text, name) => {
      const next = rank < 0 ? null : data.top[rankLens][rank + by];
      return el("button", { type: "button", class: "icon", "aria-label": name, title: name, disabled: !next, onclick: () => choose(next, true) }, text);
    };
    panel.replaceChildren(
      el("div", { class: "detail-head" }, el("h2", {}, site.label), el("span", { class: "buttons" }, rank >= 0 ? step(-1, "‹", "Better-ranked head") : null, rank >= 0 ? step(1, "›", "Next head in rank") : null,
        el("button", { type: "button", class: "icon close", "aria-label": "Close details", title: "Close", onclick: closeDetail }, "×"))),
      el("p", { class: "facts", "aria-live": "polite" }, facts.join(" · ") || key),
      ...detailPictures(site), detailNumbers(site), ...detailLabels(site), ...detailAttention(site));
    panel.hidden = false;
    panel.scrollTop = 0;
    document.body.classList.add("open");
    if (byHand && !wide.matches) {
      panel.focus({ preventScroll: true });
      // What was chosen stays in sight above the sheet.
      const chosen = [...document.querySelectorAll(`main [data-site="${CSS.escape(key)}"]`)].find((node) => node.getBoundingClientRect().bottom > 0);
      const hidden = chosen ? chosen.getBoundingClientRect().bottom + 12 - panel.getBoundingClientRect().top : 0;
      if (hidden > 0 && hidden < window.innerHeight) window.scrollBy(0, hidden);
    }
  }

  function detailPictures(site) {
    const columns = [];
    if (site.steering) columns.push([site.total ? "Direct" : "Steered", site.steering.pictures]);
    if (site.total) columns.push(["Total", site.total.pictures]);
    if (site.ablation) columns.push(["Without it", site.ablation.pictures]);
    if (site.steering?.controls.length) columns.push(["Control", site.steering.controls]);
    if (site.steering?.foils.length) columns.push(["Other input", site.steering.foils]);
    if (site.total?.controls.length) columns.push([site.steering ? "Total control" : "Control", site.total.controls]);
    if (site.diffusion) columns.push(["Diffusion", site.diffusion.pictures]);
    if (!columns.length) return [el("p", { class: "quiet" }, "No picture of this head is in this run.")];
    columns.push(["Clean", data.clean]);
    return meta.seeds.map((seed) => el("div", { class: "detail-pictures" }, ...columns.flatMap(([name, cells]) => cells.filter((cell) => cell.seed === seed).map((cell) =>
      figure(picture(cell.src, `${site.label}, ${name}, ${meta.words.seed} ${seed + Number(meta.words.first)}`), el("b", {}, name), `sim. ${fixed(cell.similarity)}`, `${meta.words.fid} ${fixed(cell.fidelity)}`,
        meta.seeds.length > 1 ? `${meta.words.seed} ${seed + Number(meta.words.first)}` : null, cell.of ? `write for ${cell.of}` : cell.draw ? `draw ${cell.draw}` : null)))));
  }

  function detailNumbers(site) {
    const shown = ["steering", "total", "ablation", "diffusion"].filter((lens) => site[lens]);
    const head = { steering: site.total ? "Direct" : "Steering", total: "Total", ablation: "Without", diffusion: "Diffusion" };
    const rows = [["Similarity", "similarity"], [meta.words.without, "steered"], [meta.words.fidelity[0].toUpperCase() + meta.words.fidelity.slice(1), "fidelity"]];
    if (meta.seeds.length > 1) rows.push([`Agreement of ${meta.words.seed}s`, "agreement"]);
    const row = (name, ...cells) => el("tr", {}, el("th", { scope: "row" }, name), ...cells.map((cell) => el("td", {}, cell)));
    const rest = [];
    const blank = () => shown.slice(1).map(() => "");
    // A row of what only some lenses have; blank for the others.
    const some = (name, key, format) => {
      const known = (lens) => lens !== "diffusion" && site[lens][key] !== null;
      if (shown.some(known)) rest.push(row(name, ...shown.map((lens) => (known(lens) ? format(site[lens][key]) : ""))));
    };
    some("Strength ρ", "rho", (value) => fixed(value));
    some("Control's similarity", "control", (value) => fixed(value));
    some("With its write for another input", "foil", (value) => fixed(value));
    some("Beats, of all controls", "share", (value) => percent(value));
    some("Cosine with the direct effect", "directCosine", (value) => fixed(value));
    some("Cosine of the changes", "changeCosine", (value) => fixed(value));
    if (site.kind === "head") {
      const index = site.layer * meta.heads + site.head;
      rest.push(row("Write norm / final residual", fixed(data.writeNorms[index], 3), ...blank()), row("Direct similarity", fixed(data.direct[index]), ...blank()));
    }
    return el("table", { class: "numbers" }, shown.length ? el("thead", {}, el("tr", {}, el("td", {}), ...shown.map((lens) => el("th", { scope: "col" }, head[lens])))) : null,
      el("tbody", {}, ...(shown.length ? rows.map(([name, key]) => row(name, ...shown.map((lens) => fixed(site[lens][key])))) : []), ...rest));
  }

  function detailLabels(site) {
    if (!site.labels.length) return [];
    return [el("h3", {}, `Nearest labels of ${site.kind === "embed" || site.kind.startsWith("resid") ? "the residual" : "the write itself"}`),
      el("ol", { class: "label-list" }, ...site.labels.map(([text, score]) => el("li", {}, text, " ", el("span", { class: "quiet" }, fixed(score)))))];
  }

  function attentionOf(layer, head) {
    if (!data.attention) return null;
    if (!attention) {
      const bytes = Uint8Array.from(atob(data.attention), (character) => character.charCodeAt(0));
      attention = new DataView(bytes.buffer);
    }
    const start = (layer * meta.heads + head) * meta.tokens;
    return Array.from({ length: meta.tokens }, (_, i) => attention.getUint16(2 * (start + i), true) / 65535);
  }

  function detailAttention(site) {
    const shares = site.kind === "head" && data.seen ? attentionOf(site.layer, site.head) : null;
    if (!shares) return [];
    const [rows, columns] = meta.grid;
    const patches = shares.slice(meta.firstPatch, meta.firstPatch + rows * columns);
    const even = 1 / meta.tokens;
    const canvas = el("canvas", { width: columns, height: rows, "aria-hidden": "true" });
    const context = canvas.getContext("2d");
    const veil = context.createImageData(columns, rows);
    // A dark veil that clears where the head looks: fully clear at four times an even share, the same for all heads.
    patches.forEach((share, i) => veil.data.set([12, 14, 24, Math.round(225 * (1 - Math.min(share / (4 * even), 1)))], 4 * i));
    context.putImageData(veil, 0, 0);
    // The map lies on what the encoder saw of the picture, which preprocessing may crop, squash or pad.
    ["left", "top", "width", "height"].forEach((side, i) => { canvas.style[side] = `${100 * data.seen[i]}%`; });
    const [left, top, width, height] = data.seen;
    const cropped = left > 0 || top > 0 || left + width < 1 || top + height < 1;
    const most = Math.max(...patches);
    const at = patches.indexOf(most);
    const own = shares.slice(0, meta.firstPatch).reduce((sum, share) => sum + share, 0);
    return [el("h3", {}, "Attention of the readout token"),
      el("div", { class: "attention-row" }, el("div", { class: "attention", role: "img", "aria-label": `Attention of ${site.label} over the input: strongest patch at row ${Math.floor(at / columns)}, column ${at % columns}, with ${percent(most, 1)}` }, picture(data.input, ""), canvas),
        el("p", { class: "small" }, `${percent(own, 1)} stays on ${meta.firstPatch === 1 ? "the CLS token itself" : "CLS and register tokens"}; the strongest patch gets ${percent(most, 1)} (${fixed(most / even, 1)} times an even share). Clear: at least four times an even share; dark: none.${cropped ? " Faded: outside the encoder's view." : ""} The same scale for every head.`))];
  }

  // ---- which picture, and the address
  function drawSwitcher() {
    if (meta.pictures.length < 2) return;
    const box = $("switcher");
    box.hidden = false;
    if (meta.pictures.length > 12) {
      const select = el("select", { id: "picture-select", onchange: (event) => show(Number(event.target.value)) }, ...meta.pictures.map((one, i) => el("option", { value: i }, one.name)));
      box.replaceChildren(el("button", { type: "button", class: "icon", "aria-label": "Previous input", onclick: () => show((state.picture + meta.pictures.length - 1) % meta.pictures.length) }, "‹"), el("label", { for: "picture-select", class: "sr" }, "Input picture"), select, el("button", { type: "button", class: "icon", "aria-label": "Next input", onclick: () => show((state.picture + 1) % meta.pictures.length) }, "›"));
    } else box.replaceChildren(...meta.pictures.map((one, i) => el("button", { type: "button", "data-index": i, onclick: () => show(i) }, one.name)));
  }

  function show(index) {
    state.picture = index;
    data = read(`steerlens-picture-${index}`);
    // Keys come from the address too: none may name what every object inherits.
    data.sites = Object.assign(Object.create(null), data.sites);
    attention = null;
    $("switcher").querySelectorAll("[data-index]").forEach((node) => node.setAttribute("aria-pressed", String(Number(node.dataset.index) === index)));
    const select = $("picture-select");
    if (select) select.value = String(index);
    drawOpening(); drawStrip(); drawMap(); drawTop(); drawEffects(); drawOther(); drawLabels();
    // On a wide page the panel always stands beside the map; on a narrow one it would cover what was just opened.
    const key = state.site || (wide.matches ? firstHead() : null);
    if (key && (data.sites[key] || bareHead(key))) choose(key, false);
    else keep();
  }

  function keep() {
    const parts = new URLSearchParams();
    if (meta.pictures.length > 1) parts.set("picture", meta.pictures[state.picture].id);
    if (state.site) parts.set("site", state.site);
    if (state.mode && state.mode !== firstMode(available())) parts.set("map", state.mode);
    const hash = `#${parts}`;
    if (hash !== location.hash && (parts.size || location.hash)) history.replaceState(null, "", hash);
  }

  function fromHash() {
    const parts = new URLSearchParams(location.hash.slice(1));
    const index = meta.pictures.findIndex((one) => one.id === parts.get("picture"));
    if (parts.get("site")) state.site = parts.get("site");
    if (Object.hasOwn(modes, parts.get("map") || "")) state.mode = parts.get("map");
    show(index < 0 ? state.picture : index);
  }

  // ---- printing: a copy of every other input's sections, since the page shows one input at a time
  function addPrinted() {
    dropPrinted();
    const current = state.picture, chosen = state.site;
    const box = el("div", { id: "printed", class: "printed" });
    meta.pictures.forEach((one, index) => {
      if (index === current) return;
      show(index);
      const copies = ["input-title", "strip-title", "map-title", "top-title", "effects-title", "other-title", "labels-title"].map((id) => $(id).closest("section").cloneNode(true));
      copies.forEach((copy) => [copy, ...copy.querySelectorAll("[id]")].forEach((node) => node.removeAttribute("id")));
      box.append(el("div", { class: "printed-input" }, el("h2", { class: "printed-name" }, one.name), ...copies));
    });
    state.site = chosen;
    if (meta.pictures.length) show(current);
    $("main").append(box);
  }

  function dropPrinted() {
    $("printed")?.remove();
  }

  window.addEventListener("beforeprint", addPrinted);
  window.addEventListener("afterprint", dropPrinted);
  window.addEventListener("hashchange", fromHash);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape" && !wide.matches && !$("detail").hidden) closeDetail(); });
  if (meta.pictures.length) { drawSwitcher(); fromHash(); }
})();
