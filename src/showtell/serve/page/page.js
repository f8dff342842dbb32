// The page of `showtell serve`: sends photos to v1/captions, and draws where the model looked for each word.

const $ = (id) => document.getElementById(id);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const START = { top_p: 0.9 }; // for sampling, if the model has no value of its own
const FULL_AT = 4; // even shares that a cell needs for full brightness (as in pages/overlay.py)
const GLOW = [255, 176, 64], GLOW_OPACITY = 0.45, DIMMED = 0.5, GREYED = 0.75;
const FIELD = 96; // the overlay's own pixels, each way
const AT_ONCE = 4; // requests
const STEP = 620; // ms for each word that is played

let models = [], token = "";
let chosen = []; // one model's name, or two
let photos = [], current = null;
let views = [];
let seed = 0;

// ---- The API ----

async function api(path, options = {}) {
  for (let attempt = 0; ; attempt++) {
    const headers = token ? { Authorization: `Bearer ${token}` } : {};
    const answer = await fetch(path, { ...options, headers });
    if (answer.ok) return answer.json();
    if (answer.status === 401) { await askForToken(); continue; }
    if (answer.status === 429 && attempt < 5) {
      await pause(1000 * Math.min(10, Number(answer.headers.get("Retry-After")) || 1));
      options.signal?.throwIfAborted();
      continue;
    }
    const problem = await answer.json().catch(() => null);
    throw new Error(problem?.detail ?? `The server answered ${answer.status}.`);
  }
}

let asking = null;
function askForToken() { // one dialog, however many requests wait for it
  asking ??= new Promise((resolve) => {
    const dialog = $("locked");
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.addEventListener("close", () => { token = $("token").value; asking = null; resolve(); }, { once: true });
    $("token").value = "";
    dialog.showModal();
  });
  return asking;
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

let running = 0;
const waiting = [];
async function inTurn(work) {
  if (running >= AT_ONCE) await new Promise((resolve) => waiting.push(resolve));
  running++;
  try { return await work(); } finally { running--; waiting.shift()?.(); }
}

// ---- How to search ----

const mode = () => document.querySelector("[name=mode]:checked").value;
const controls = () => document.querySelectorAll(".option [name]");
const valuesOf = (slider) => slider.dataset.values.split(" ");

function searchOptions() { // as a form sends them; an empty control means the model's own option
  const options = mode() === "beam" ? {} : { sample: true, seed };
  for (const control of controls()) {
    if (control.closest("[data-mode][hidden]")) continue;
    const value = control.type === "range" ? valuesOf(control)[control.value] : control.value.trim();
    if (value && value !== "off") options[control.name] = "list" in control.dataset ? value.split(/[\s,]+/) : value;
  }
  return { ...options, num: Math.min(options.beam ?? 5, 5) };
}

function showOptions() {
  for (const each of document.querySelectorAll("[data-mode]")) each.hidden = each.dataset.mode !== mode();
  for (const slider of document.querySelectorAll(".option [type=range]")) {
    const text = valuesOf(slider)[slider.value];
    $(`${slider.id}-value`).textContent = text;
    slider.setAttribute("aria-valuetext", text);
    slider.style.setProperty("--filled", `${(100 * slider.value) / slider.max}%`);
  }
}

function showOwn(own) { // a model's options
  for (const control of controls()) {
    const value = own[control.name] ?? START[control.name];
    if (control.type === "range") {
      const values = valuesOf(control), place = values.findIndex((each) => (value == null ? each === "off" : each >= value));
      control.value = place < 0 ? values.length : place;
    } else if (control.type === "select-one") control.options[0].text = `default: ${value}`;
    else control.placeholder = [value ?? ""].flat().join(" ");
  }
  if (own.sample) document.querySelector("[value=sample]").checked = true;
}

// ---- Photos and their captions ----

function add(files) {
  const added = [...files].map((file) => ({ name: file.name, file, url: URL.createObjectURL(file), told: new Map() }));
  if (!added.length) return;
  stopPlaying();
  photos.push(...added);
  document.body.classList.add("started");
  $("search").hidden = false;
  $("stage").hidden = inGallery();
  for (const photo of added) {
    $("film").append(thumbnail(photo));
    photo.card = new Card(photo);
    $("gallery").append(photo.card.root);
  }
  select(added[0]);
  for (const photo of added.slice(1)) for (const name of chosen) caption(photo, name);
  window.scrollTo({ top: 0, behavior: calm.matches ? "auto" : "smooth" });
}

function thumbnail(photo) {
  const item = document.createElement("li"), button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-label", photo.name);
  button.append(small(photo));
  button.onclick = () => select(photo);
  photo.thumbnail = button;
  item.append(button);
  return item;
}

function small(photo) {
  const image = new Image();
  image.src = photo.url;
  image.alt = "";
  image.onerror = () => image.replaceWith(element("span", "untitled", photo.name));
  return image;
}

function select(photo) {
  stopPlaying();
  current = photo;
  for (const each of photos) mark(each.thumbnail, each === photo);
  for (const view of views) view.show(photo);
  for (const name of chosen) caption(photo, name);
}

// Ask for a photo's captions, unless they are there already; an older request that is still open is aborted.
async function caption(photo, model) {
  const options = searchOptions(), key = JSON.stringify(options);
  const before = photo.told.get(model);
  if (before?.key === key && !before.problem) return;
  before?.abort.abort();
  const told = { key, abort: new AbortController(), answer: before?.answer, open: true };
  photo.told.set(model, told);
  refresh(photo, model);
  const form = new FormData();
  form.append("images", photo.file, photo.name);
  for (const [name, values] of Object.entries({ ...options, model, attention: true }))
    for (const value of [values].flat()) form.append(name, value);
  try {
    const answer = await inTurn(() => {
      told.abort.signal.throwIfAborted();
      return api("v1/captions", { method: "POST", body: form, signal: told.abort.signal });
    });
    told.answer = answer;
  } catch (error) {
    if (error.name === "AbortError") return;
    told.problem = error instanceof TypeError ? "The server can’t be reached. Is it still running?" : error.message;
    told.answer = null;
  }
  told.open = false;
  photo.thumbnail.classList.toggle("bad", Boolean(told.problem));
  refresh(photo, model);
}

function refresh(photo, model) {
  if (model === chosen[0]) { photo.card.tell(); count(); }
  if (photo !== current) return;
  for (const view of views) if (view.model === model) view.tell();
}

// ---- All photos at once ----

const inGallery = () => $("grid").getAttribute("aria-pressed") === "true";
const onScreen = () => (inGallery() ? photos : [current].filter(Boolean));
const askAll = () => { for (const photo of onScreen()) for (const name of chosen) caption(photo, name); };
let unsaved = false; // edits

class Card { // a photo of the gallery, with the first model's best caption to correct
  constructor(photo) {
    this.photo = photo;
    this.root = $("card").content.firstElementChild.cloneNode(true);
    const part = (selector) => this.root.querySelector(selector);
    Object.assign(this, { field: part("textarea"), about: part(".about-caption"), edited: null });
    part(".open").append(small(photo));
    part(".open").setAttribute("aria-label", `${photo.name}: where the model looked`);
    part(".open").onclick = () => { showGallery(false); select(photo); };
    part(".name").textContent = photo.name;
    this.field.setAttribute("aria-label", `Caption of ${photo.name}`);
    this.field.oninput = () => { unsaved = true; this.edit(this.field.value); };
    this.field.onkeydown = (event) => {
      if (event.key !== "Enter" || event.isComposing) return;
      event.preventDefault(); // a caption is one line
      const fields = [...document.querySelectorAll(".card textarea:enabled")];
      fields[fields.indexOf(this.field) + (event.shiftKey ? -1 : 1)]?.focus();
    };
  }

  get told() { return this.photo.told.get(chosen[0]); }
  get best() { return this.told?.answer?.images[0].captions[0]; }
  get words() { return (this.edited ?? this.best?.text ?? "").replace(/\s+/g, " ").trim(); }

  edit(words) { // null: the model's own
    this.edited = words === this.best?.text ? null : words;
    this.tell();
  }

  tell() {
    const { best, edited } = this, { problem, open } = this.told ?? {};
    this.field.disabled = !best;
    this.field.classList.toggle("stale", Boolean(open && best));
    const text = edited ?? best?.text ?? "";
    if (this.field.value !== text) this.field.value = text;
    this.about.replaceChildren(problem ?? (best ? "" : "…"));
    this.about.classList.toggle("failed", Boolean(problem));
    if (best && edited === null && best.confidence !== null) this.about.append(badge(best.confidence));
    if (edited !== null) {
      const undo = element("button", "undo", "undo");
      undo.type = "button";
      undo.onclick = () => { this.edit(null); this.field.focus(); };
      this.about.append(element("b", "", "edited"), " ", undo);
    }
  }
}

function count() {
  const done = photos.filter(({ card }) => card.best && !card.told.open).length;
  $("all").hidden = photos.length < 2;
  $("counted").textContent = done < photos.length ? `${done} of ${photos.length} captioned` : `${done} photos`;
}

function showGallery(wanted) {
  stopPlaying();
  $("grid").setAttribute("aria-pressed", String(wanted));
  $("gallery").hidden = !wanted;
  $("stage").hidden = $("film").hidden = wanted;
  askAll();
}

function downloadAll() { // as RFC 4180 says; the model's confidence does not hold for an edited caption
  const cards = photos.map(({ card }) => card).filter((card) => card.words);
  const cell = (text) => `"${text.replaceAll('"', '""')}"`;
  const rows = cards.map(({ photo, words, edited, best }) => [
    cell(photo.name), cell(words), edited === null ? best.confidence?.toFixed(3) ?? "" : "",
  ]);
  const lines = [["image", "caption", "confidence"], ...rows].map((row) => `${row.join(",")}\r\n`);
  saveAs(new Blob(lines, { type: "text/csv" }), "captions.csv");
  unsaved = false;
  $("counted").textContent = `Saved ${rows.length} captions`;
  announce($("counted").textContent);
}

// ---- One model's view of the current photo ----

class View {
  constructor(model) {
    this.model = model;
    this.root = $("view").content.firstElementChild.cloneNode(true);
    const part = (name) => this.root.querySelector(`.${name}`);
    Object.assign(this, {
      frame: part("frame"), photo: part("photo"), look: part("look"), by: part("by"), problem: part("problem"),
      caption: part("caption"), facts: part("facts"), actions: part("actions"), others: part("others"),
    });
    this.by.textContent = model;
    this.by.classList.toggle("unseen", chosen.length < 2);
    this.overlay = new Overlay(part("hush"), part("glow"));
    this.photo.onload = () => this.fit(this.photo.naturalWidth, this.photo.naturalHeight);
    this.photo.onerror = () => this.unshown();
    part("copy").onclick = (event) => copy(sentence(this.shown.text), event.currentTarget);
    part("save").onclick = () => save(this.answer, `${current.name.replace(/\.[^.]*$/, "")}.json`);
    part("play").onclick = () => play(this);
    this.caption.onkeydown = (event) => this.move(event);
    this.caption.onpointerleave = () => this.hint();
  }

  show(photo) {
    this.answer = this.pinned = null;
    this.place = 0;
    this.frame.querySelector(".unshown")?.remove();
    this.photo.hidden = false;
    this.photo.src = photo.url;
    this.photo.alt = photo.name;
    this.look.textContent = "";
    this.attend(null);
    this.caption.replaceChildren();
    this.tell();
  }

  fit(width, height) { // the frame takes the photo's shape; a small photo is shown larger, up to a point
    this.frame.style.setProperty("--ratio", width / height);
    this.frame.style.setProperty("--widest", `${Math.max(320, 3 * width)}px`);
  }

  unshown() { // a format that the server reads and this browser does not
    this.photo.hidden = true;
    this.frame.append(element("p", "unshown", "No preview"));
  }

  tell() {
    const told = current.told.get(this.model);
    const problem = told?.problem, answer = told?.answer;
    this.problem.hidden = !problem;
    if (problem) this.problem.textContent = problem;
    for (const part of [this.actions, this.others]) part.hidden = !answer;
    this.caption.classList.toggle("stale", Boolean(told?.open && answer));
    if (!answer) {
      this.answer = null;
      this.attend(null);
      this.facts.textContent = this.look.textContent = "";
      this.caption.replaceChildren(...(problem ? [] : [waitingLines()]));
      return;
    }
    if (answer === this.answer) return;
    this.answer = answer;
    this.place = 0;
    this.pinned = null;
    this.write();
    announce(`${current.name}${chosen.length > 1 ? `, ${this.model}` : ""}: ${sentence(this.shown.text)}`);
  }

  get captions() { return this.answer.images[0].captions; }
  get shown() { return this.captions[this.place]; }

  write() { // the caption at `place`, and the list of all
    const { words, word_probabilities: sure, attention, confidence, finished } = this.shown;
    this.words = words.map((word, place) => this.word(word, place, sure[place], attention?.[place]));
    this.caption.replaceChildren(...this.words.flatMap((word) => [word, " "]));
    if (!words.length) this.caption.textContent = "…";
    this.actions.querySelector(".play").hidden = !attention;
    this.photo.alt = sentence(this.shown.text);
    this.facts.replaceChildren(
      ...(confidence === null ? [] : [badge(confidence), ` ${ADVICE[level(confidence)]} `]),
      `The stronger a word’s line, the surer the model is of it.${finished ? "" : " Cut at the maximum length."}`,
    );
    this.others.hidden = this.captions.length < 2;
    this.others.querySelector("ol").replaceChildren(...this.captions.map((each, place) => {
      const item = document.createElement("li"), button = element("button", "", "");
      button.type = "button";
      button.dir = "auto";
      button.textContent = sentence(each.text);
      mark(button, place === this.place);
      button.onclick = () => {
        stopPlaying();
        this.place = place;
        this.pinned = null;
        this.write();
        this.others.querySelectorAll("button")[place].focus();
      };
      item.append(button);
      return item;
    }));
    this.attend(null);
    this.hint();
  }

  word(word, place, sure, alpha) {
    const button = element("button", "word", place ? word : capitalised(word));
    button.type = "button";
    button.tabIndex = place ? -1 : 0; // one stop of the Tab key; the arrows move between words
    button.style.setProperty("--place", place);
    button.style.setProperty("--sure", sure);
    button.setAttribute("aria-pressed", "false");
    if (alpha) button.setAttribute("aria-label", `${word}: ${brightest(alpha)}, ${percent(sure)}`);
    button.onpointerenter = (event) => { if (event.pointerType === "mouse") { stopPlaying(); this.attend(place); } };
    button.onpointerleave = (event) => { if (event.pointerType === "mouse") this.attend(this.pinned); };
    button.onfocus = () => { if (button.matches(":focus-visible")) this.attend(place); };
    button.onblur = () => this.attend(this.pinned);
    button.onclick = () => { stopPlaying(); this.pin(this.pinned === place ? null : place); };
    return button;
  }

  pin(place) {
    this.pinned = place;
    this.words.forEach((word, i) => word.setAttribute("aria-pressed", String(i === place)));
    this.attend(place);
  }

  move(event) {
    const from = this.words.indexOf(document.activeElement);
    if (from < 0) return;
    if (event.key === "Escape") { this.pin(null); this.hint(); return; }
    const last = this.words.length - 1;
    const to = { ArrowLeft: from - 1, ArrowRight: from + 1, Home: 0, End: last }[event.key];
    if (to === undefined || to < 0 || to > last) return;
    event.preventDefault();
    this.words[from].tabIndex = -1;
    this.words[to].tabIndex = 0;
    this.words[to].focus();
  }

  attend(place) { // show where the model looked for a word; null: the photo as it is
    const alpha = place === null || place === undefined ? null : this.shown?.attention?.[place];
    this.words?.forEach((word, i) => word.classList.toggle("active", i === place));
    this.frame.classList.toggle("looking", Boolean(alpha));
    if (place === null || place === undefined) { this.hint(); return; }
    const { words, word_probabilities: sure } = this.shown;
    const name = element("b", "", `“${words[place]}”`);
    this.look.replaceChildren(name, `  ${alpha ? `${brightest(alpha)} · ` : ""}probability ${percent(sure[place])}`);
    if (alpha) this.overlay.show(alpha, this.answer.images[0].seen, this.photo);
  }

  hint() {
    if (!this.answer || this.words?.some((word) => word.classList.contains("active"))) return;
    const touch = matchMedia("(hover: none)").matches;
    this.look.textContent = this.shown.attention
      ? `${touch ? "Tap" : "Hover over"} a word to see where the model looked.`
      : "This model takes in the whole photo at once: there is no place to show.";
  }
}

function waitingLines() {
  const lines = element("div", "waiting", "");
  lines.append(document.createElement("i"), document.createElement("i"));
  return lines;
}

// ---- Attention over the photo ----

class Overlay { // two canvases: one removes colour where the model did not look, one dims there and glows elsewhere
  constructor(hush, glow) {
    this.layers = [hush, glow];
    this.field = null; // heat, 0 to 1, as it is drawn now
  }

  show(alpha, seen, photo) {
    const target = field(alpha), visible = this.layers[1].closest(".frame").classList.contains("looking");
    const from = visible && this.field && !calm.matches ? this.field : target;
    const ratio = (photo.naturalHeight || 3) / (photo.naturalWidth || 4);
    for (const layer of this.layers) { layer.width = 480; layer.height = Math.max(1, Math.round(480 * ratio)); }
    const begin = performance.now();
    const now = (this.turn = {});
    const frame = (time) => {
      if (this.turn !== now) return;
      const t = Math.min(1, Math.max(0, time - begin) / 260), eased = 1 - (1 - t) ** 3;
      this.field = from === target ? target : target.map((heat, i) => from[i] + eased * (heat - from[i]));
      this.draw(seen);
      if (t < 1 && from !== target) requestAnimationFrame(frame);
    };
    frame(begin);
  }

  draw([left, top, right, bottom]) {
    const colours = [
      (heat) => [128, 128, 128, GREYED * (1 - heat)],
      (heat) => {
        const dark = DIMMED * (1 - heat), warm = GLOW_OPACITY * heat, both = 1 - (1 - dark) * (1 - warm);
        return [...GLOW.map((value) => (value * warm) / both), both];
      },
    ];
    this.layers.forEach((layer, number) => {
      const pen = layer.getContext("2d"), { width, height } = layer;
      const small = new OffscreenCanvas(FIELD, FIELD), image = new ImageData(FIELD, FIELD);
      this.field.forEach((heat, i) => {
        const [r, g, b, a] = colours[number](heat);
        image.data.set([r, g, b, 255 * a], 4 * i);
      });
      small.getContext("2d").putImageData(image, 0, 0);
      const [r, g, b, a] = colours[number](0);
      pen.clearRect(0, 0, width, height);
      pen.fillStyle = `rgb(${r} ${g} ${b} / ${a})`;
      pen.fillRect(0, 0, width, height);
      const box = [left * width, top * height, (right - left) * width, (bottom - top) * height];
      pen.clearRect(...box);
      pen.imageSmoothingQuality = "high";
      pen.drawImage(small, ...box);
    });
  }
}

// A word's heat: above its even share of the attention, scaled, smoothed (bicubic) to FIELD x FIELD.
function field(alpha) {
  const cells = alpha.flat(), even = cells.reduce((a, b) => a + b, 0) / cells.length;
  if (!(even > 0)) return new Float32Array(FIELD * FIELD);
  const strongest = Math.max(FULL_AT, Math.max(...cells) / even);
  const heat = alpha.map((row) => row.map((cell) => (cell / even - 1) / (strongest - 1)));
  const rows = weights(alpha.length), columns = weights(alpha[0].length), smooth = new Float32Array(FIELD * FIELD);
  const wide = heat.map((row) => columns.map((taps) => taps.reduce((sum, [i, w]) => sum + w * row[i], 0)));
  for (let y = 0; y < FIELD; y++) {
    for (let x = 0; x < FIELD; x++) {
      let sum = 0;
      for (const [i, w] of rows[y]) sum += w * wide[i][x];
      smooth[y * FIELD + x] = Math.min(1, Math.max(0, sum));
    }
  }
  return smooth;
}

function weights(count) { // for each of FIELD places, the cells of `count` that it mixes, and their shares
  const cubic = (x) => {
    x = Math.abs(x);
    return x < 1 ? (1.5 * x - 2.5) * x * x + 1 : x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0;
  };
  return Array.from({ length: FIELD }, (_, place) => {
    const at = ((place + 0.5) * count) / FIELD - 0.5, first = Math.floor(at) - 1;
    return [0, 1, 2, 3].map((n) => [Math.min(count - 1, Math.max(0, first + n)), cubic(at - first - n)]);
  });
}

function brightest(alpha) { // in words, for people who can't see the picture
  const cells = alpha.flat(), even = cells.reduce((a, b) => a + b, 0) / cells.length, most = Math.max(...cells);
  if ((most / even - 1) / (Math.max(FULL_AT, most / even) - 1) < 0.25) return "about evenly everywhere";
  const height = alpha.length, width = alpha[0].length, at = cells.indexOf(most);
  const row = Math.floor(at / width), column = at % width;
  const vertical = ["upper", "", "lower"][Math.floor(((2 * row + 1) * 3) / (2 * height))];
  const horizontal = ["left", "", "right"][Math.floor(((2 * column + 1) * 3) / (2 * width))];
  return `${vertical} ${horizontal || "middle"}`.trim();
}

let playing = null;
async function play(view) {
  const stopped = playing?.view === view;
  stopPlaying();
  if (stopped) return;
  const button = view.actions.querySelector(".play"), mine = (playing = { view, button });
  button.textContent = "Stop";
  view.pin(null);
  for (let place = 0; place < view.words.length; place++) {
    view.attend(place);
    await pause(STEP);
    if (playing !== mine) return;
  }
  view.attend(null);
  stopPlaying();
}

function stopPlaying() {
  if (!playing) return;
  playing.button.textContent = "Play the words";
  const { view } = playing;
  playing = null;
  view.attend(view.pinned);
}

// ---- Small things ----

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = text;
  return made;
}

function mark(button, isCurrent) {
  if (isCurrent) button.setAttribute("aria-current", "true");
  else button.removeAttribute("aria-current");
}

const capitalised = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const sentence = (text) => `${capitalised(text)}.`;
const announce = (text) => { $("status").textContent = text; };

// As confidence.py has them.
const level = (confidence) => (confidence >= 0.6 ? "sure" : confidence >= 0.3 ? "unsure" : "guess");
const ADVICE = {
  sure: "Most captions like this one are right.",
  unsure: "Captions like this one are often wrong somewhere.",
  guess: "Most captions like this one are wrong: check it before you use it.",
};

function badge(confidence) {
  const kind = level(confidence), found = element("span", `badge ${kind}`, kind === "guess" ? "a guess" : kind);
  found.title = `Of 100 captions with this confidence, about ${Math.round(100 * confidence)} are right`;
  return found;
}

function percent(probability) {
  const value = 100 * probability;
  return value < 1 ? "under 1 %" : `${Math.round(value)} %`;
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // not allowed, or a page without https from another machine
    const field = element("textarea", "unseen", text);
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  const label = "Copy as alt text";
  button.textContent = "Copied";
  announce("Copied.");
  await pause(1600);
  button.textContent = label;
}

function save(value, name) {
  saveAs(new Blob([JSON.stringify(value, null, 2)], { type: "application/json" }), name);
}

function saveAs(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

// ---- What the page reacts to ----

function showModels() {
  stopPlaying();
  const two = $("compare").getAttribute("aria-pressed") === "true";
  chosen = two ? [$("model-a").value, $("model-b").value] : [$("model-a").value];
  $("second").hidden = !two;
  views = chosen.map((name) => new View(name));
  $("views").classList.toggle("two", two);
  $("views").replaceChildren(...views.map((view) => view.root));
  for (const photo of photos) photo.card.tell();
  if (current) select(current);
  askAll();
}

let later;
function searchAgain() {
  showOptions();
  clearTimeout(later);
  later = setTimeout(() => { stopPlaying(); askAll(); }, 160);
}

function listen() {
  $("files").onchange = (event) => { add(event.target.files); event.target.value = ""; };
  $("search").oninput = searchAgain;
  $("search").onsubmit = (event) => event.preventDefault();
  $("again").onclick = () => { seed++; searchAgain(); };
  $("model-a").onchange = $("model-b").onchange = showModels;
  $("compare").onclick = () => {
    const pressed = $("compare").getAttribute("aria-pressed") !== "true";
    $("compare").setAttribute("aria-pressed", String(pressed));
    showModels();
  };
  $("grid").onclick = () => showGallery(!inGallery());
  $("download").onclick = downloadAll;
  addEventListener("beforeunload", (event) => { if (unsaved) event.preventDefault(); });
  document.addEventListener("paste", (event) => add(event.clipboardData.files));
  let depth = 0; // dragenter and dragleave come for every element on the way
  const drags = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragenter", (event) => { if (drags(event)) document.body.classList.toggle("dropping", ++depth > 0); });
  document.addEventListener("dragleave", (event) => { if (drags(event)) document.body.classList.toggle("dropping", --depth > 0); });
  document.addEventListener("dragover", (event) => { if (drags(event)) event.preventDefault(); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    depth = 0;
    document.body.classList.remove("dropping");
    add(event.dataTransfer.files);
  });
}

async function showExamples() {
  const found = await api("examples").catch(() => []);
  $("examples").hidden = !found.length;
  $("example-list").replaceChildren(...found.map(({ name, url }) => {
    const item = document.createElement("li"), button = document.createElement("button"), image = new Image();
    image.src = url.slice(1);
    image.alt = name;
    button.type = "button";
    button.append(image);
    button.onclick = async () => {
      const blob = await (await fetch(url.slice(1))).blob();
      add([new File([blob], `${name.toLowerCase()}.jpg`, { type: blob.type })]);
    };
    item.append(button);
    return item;
  }));
}

async function begin() {
  $("origin").textContent = location.origin;
  showExamples();
  ({ models } = await api("v1/models"));
  for (const id of ["model-a", "model-b"]) $(id).replaceChildren(...models.map(({ name }) => new Option(name, name)));
  if (models.length > 1) $("model-b").selectedIndex = 1;
  $("compare").hidden = models.length < 2;
  $("models").hidden = false;
  $("about").textContent = models[0].about;
  $("about").hidden = !models[0].about;
  showOwn(models[0].options);
  showOptions();
  showModels();
  listen();
}

begin();
