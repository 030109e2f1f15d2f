"use strict";
const all = (selector, within = document) => [...within.querySelectorAll(selector)];

// Play one sound at a time, with a line that moves through its spectrogram.
for (const audio of all("audio")) {
  const spectrogram = audio.previousElementSibling;
  const line = spectrogram.lastElementChild;
  const follow = () => {
    line.style.left = `${(100 * audio.currentTime) / (audio.duration || 1)}%`;
    if (!audio.paused) requestAnimationFrame(follow);
  };
  const buttons = all(`.play[data-exemplar="${audio.parentElement.id}"]`);
  const press = (pressed) => buttons.forEach((x) => x.setAttribute("aria-pressed", pressed));
  press(false);
  audio.addEventListener("play", () => {
    for (const other of all("audio")) if (other !== audio) other.pause();
    press(true);
    spectrogram.classList.add("played");
    follow();
  });
  audio.addEventListener("pause", () => press(false));
  audio.addEventListener("seeked", follow);
  spectrogram.addEventListener("click", (event) => {
    const { left, width } = spectrogram.getBoundingClientRect();
    audio.currentTime = ((event.clientX - left) / width) * (audio.duration || 0);
    audio.play();
  });
  for (const button of buttons) {
    button.addEventListener("click", () => {
      if (!audio.paused) return audio.pause();
      audio.currentTime = 0;
      audio.play();
    });
  }
}

const form = document.querySelector(".filters");
if (form) {
  const cards = all("#misclassified .clip");
  const filters = all("select", form).filter((select) => select.name !== "sort");
  // Numbers are sorted up or down, everything else as text.
  const signs = { confidence: -1, labelProbability: 1, seconds: -1 };
  const compare = (a, b, key) =>
    key in signs ? signs[key] * (a[key] - b[key]) : a[key].localeCompare(b[key]);
  const show = () => {
    for (const card of cards) {
      card.hidden = filters.some(({ name, value }) => value && card.dataset[name] !== value);
      if (card.hidden) card.querySelector("audio").pause();
    }
    const key = form.elements.sort.value;
    // Equal clips keep the order of confidence, which is that of the page.
    const sorted = [...cards].sort((a, b) => compare(a.dataset, b.dataset, key));
    sorted.forEach((card) => card.parentElement.append(card));
    const shown = cards.filter((card) => !card.hidden).length;
    form.querySelector("output").value = `${shown} of ${cards.length} clips`;
  };
  form.addEventListener("change", show);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(show));
  for (const button of all(".pairs button")) {
    button.addEventListener("click", () => {
      form.reset();
      for (const select of filters) select.value = button.dataset[select.name] ?? "";
      show();
      form.scrollIntoView();
      form.elements.label.focus({ preventScroll: true });
    });
  }
}

// The corrections of labels. The key of one contains label and suggestion: if they change, the
// question is open again.
const save = document.getElementById("save");
if (save) {
  const cards = all(".clip").filter((card) => card.querySelector(".correction"));
  const keyOf = ({ fname, label, suggested }) =>
    "correction " + JSON.stringify([document.title, fname, label, suggested]);
  const attempt = (action) => {
    try {
      return action();
    } catch {
      return null; // This browser stores nothing for local files.
    }
  };
  const partsOf = (card) => ({
    radios: all(".correction input[type=radio]", card),
    other: card.querySelector(".correction [data-other]"),
    select: card.querySelector(".correction select"),
    note: card.querySelector(".correction input[type=text]"),
  });
  // Returns null while nothing is chosen.
  const correctionOf = (card) => {
    const { radios, other, select, note } = partsOf(card);
    const chosen = radios.find((radio) => radio.checked);
    if (!chosen || (chosen === other && !select.value)) return null;
    const label = chosen === other ? select.value : chosen.value;
    return { fname: card.dataset.fname, label, note: note.value.trim() };
  };
  const restore = (card, { label, note }) => {
    const { radios, other, select, note: field } = partsOf(card);
    const chosen = radios.find((radio) => radio !== other && radio.value === label);
    if (chosen) chosen.checked = true;
    else if (other && [...select.options].some((option) => option.value === label)) {
      other.checked = true;
      select.value = label;
    }
    field.value = note;
  };
  const count = () => {
    const chosen = cards.filter(correctionOf).length;
    save.disabled = !chosen;
    save.parentElement.querySelector("output").value = `${chosen} of ${cards.length} clips decided.`;
  };
  for (const card of cards) {
    const { other, select } = partsOf(card);
    const stored = attempt(() => JSON.parse(localStorage.getItem(keyOf(card.dataset))));
    if (stored) restore(card, stored);
    select?.addEventListener("change", () => (other.checked = true));
    card.querySelector(".correction").addEventListener("change", () => {
      const correction = correctionOf(card);
      if (correction)
        attempt(() => localStorage.setItem(keyOf(card.dataset), JSON.stringify(correction)));
      count();
    });
  }
  count();
  save.addEventListener("click", () => {
    const made = cards.map(correctionOf).filter(Boolean);
    const fnames = new Set(made.map(({ fname }) => fname));
    const before = JSON.parse(save.dataset.corrections).filter(({ fname }) => !fnames.has(fname));
    const quoted = (text) => `"${String(text).replaceAll('"', '""')}"`;
    const rows = [...before, ...made].map((x) => [x.fname, x.label, x.note].map(quoted).join(","));
    const table = ["fname,label,note", ...rows, ""].join("\n");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([table], { type: "text/csv" }));
    link.download = "label_corrections.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  });
}
