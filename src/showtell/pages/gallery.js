// Search, sort, check, save: the only script that the page allows.

"use strict";
const $ = (id) => document.getElementById(id);
const { id, name } = $("photos").dataset;
const STORE = `showtell gallery ${id}`;

const photos = [...document.querySelectorAll(".photo")].map((root, place) => {
  const part = (selector) => root.querySelector(selector);
  const { image, sure } = root.dataset;
  return { root, place, image, sure, name: part(".name").title, field: part("textarea"), mark: part(".mark") };
});
const checked = new Map(); // place -> caption, for captions that somebody has edited or found right
let unsaved = false;

const wordsOf = (photo) => photo.field.value.replace(/\s+/g, " ").trim();
const counted = (number, what) => `${number.toLocaleString("en")} ${what}${number === 1 ? "" : "s"}`;

function say(text) {
  if ($("told").textContent !== text) $("told").textContent = text; // or a screen reader would say it again
}

function tellCounts() {
  const shown = photos.filter((photo) => !photo.root.hidden).length;
  const some = shown < photos.length ? `${shown.toLocaleString("en")} of ` : "";
  say(`${some}${counted(photos.length, "photo")}${checked.size ? `, ${checked.size.toLocaleString("en")} checked` : ""}`);
  $("save-checked").disabled = !checked.size;
  $("save-checked").textContent = checked.size ? `Save checked (${checked.size})` : "Save checked";
}

// ---- Checking ----

function note(photo, right = false) { // mark it as checked, if it is edited or found right
  const words = wordsOf(photo), edited = words !== photo.field.defaultValue;
  if (edited || right) checked.set(photo.place, words);
  else checked.delete(photo.place);
  photo.root.classList.toggle("checked", edited || right);
  photo.mark.hidden = !(edited || right);
  photo.mark.querySelector("b").textContent = edited ? "edited" : "right";
  tellCounts();
}

function remember() {
  try {
    localStorage.setItem(STORE, JSON.stringify({ unsaved, checked: [...checked] }));
  } catch { /* some browsers give no storage to a page that is a file */ }
}

function recall() {
  try {
    const kept = JSON.parse(localStorage.getItem(STORE));
    for (const [place, words] of kept?.checked ?? []) {
      photos[place].field.value = words;
      note(photos[place], true);
    }
    unsaved = Boolean(kept?.unsaved);
  } catch { /* as above */ }
}

function change(photo, right = false) {
  note(photo, right);
  unsaved = checked.size > 0;
  remember();
}

function step(photo, by) { // to the next caption shown, in the page's present order
  const shown = [...$("photos").querySelectorAll(".photo:not([hidden]) textarea")];
  shown[shown.indexOf(photo.field) + by]?.focus();
}

for (const photo of photos) {
  photo.field.oninput = () => change(photo);
  photo.field.onkeydown = (event) => {
    if (event.key !== "Enter" || event.isComposing) return;
    event.preventDefault(); // a caption is one line
    if (!event.shiftKey) change(photo, true);
    step(photo, event.shiftKey ? -1 : 1);
  };
  photo.mark.querySelector("button").onclick = () => {
    photo.field.value = photo.field.defaultValue;
    change(photo);
    photo.field.focus();
  };
}

// ---- Search and sort ----

$("find").oninput = () => {
  const wanted = $("find").value.trim().toLowerCase();
  for (const photo of photos) photo.root.hidden = !`${wordsOf(photo)} ${photo.name}`.toLowerCase().includes(wanted);
  tellCounts();
};

const BEFORE = {
  came: () => 0,
  doubt: (a, b) => a.sure - b.sure,
  checked: (a, b) => checked.has(b.place) - checked.has(a.place),
};
$("sort").onchange = () => {
  const before = BEFORE[$("sort").value];
  const sorted = [...photos].sort((a, b) => before(a, b) || a.place - b.place);
  $("photos").append(...sorted.map((photo) => photo.root));
};

// ---- Saving ----

const cell = (text) => `"${text.replaceAll('"', '""')}"`;

function save(chosen, file) { // as RFC 4180 says, with every cell in quotes
  const rows = chosen.map((photo) => [photo.image, wordsOf(photo)]).filter(([, words]) => words);
  const lines = ["image,caption", ...rows.map((row) => row.map(cell).join(","))].map((line) => `${line}\r\n`);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob(lines, { type: "text/csv" }));
  link.download = file;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  unsaved = false;
  remember();
  say(`Saved ${counted(rows.length, "caption")} as ${file}`);
}

$("save-all").onclick = () => save(photos, `${name}.csv`);
$("save-checked").onclick = () => save(photos.filter((photo) => checked.has(photo.place)), `${name}-checked.csv`);
$("tools").onsubmit = (event) => event.preventDefault();
addEventListener("beforeunload", (event) => { if (unsaved) event.preventDefault(); });

if (photos.every((photo) => photo.sure === undefined)) $("sort").querySelector("[value=doubt]").remove();
recall();
tellCounts();
$("tools").hidden = false;
