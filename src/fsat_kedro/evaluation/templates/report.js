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
  const cards = all(".clip");
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

  // The key of a verdict contains label and first tag: if they change, the question is open again.
  const save = document.getElementById("save");
  const keyOf = ({ split, fname, label, tag }) =>
    "verdict " + JSON.stringify([document.title, split, fname, label, tag]);
  const verdictOf = (card) => card.querySelector(".verdict input:checked")?.value;
  const attempt = (action) => {
    try {
      return action();
    } catch {
      return null; // This browser stores nothing for local files.
    }
  };
  for (const card of cards) {
    const stored = attempt(() => localStorage.getItem(keyOf(card.dataset)));
    for (const input of all(".verdict input", card)) {
      input.checked = input.value === stored;
      input.addEventListener("change", () => {
        save.disabled = false;
        attempt(() => localStorage.setItem(keyOf(card.dataset), input.value));
      });
    }
  }
  save.disabled = !cards.some(verdictOf);
  save.addEventListener("click", () => {
    // Spreadsheets run a cell that begins so, unless an apostrophe is before it.
    const safe = (text) => (/^'*[=+@\t\r＝＋－＠-]/.test(text) ? `'${text}` : text);
    const quoted = (text) => `"${safe(String(text)).replaceAll('"', '""')}"`;
    const rows = cards.filter(verdictOf).map((card) => {
      const { split, fname, label, tag, confidence } = card.dataset;
      return [split, fname, label, tag, confidence, verdictOf(card)].map(quoted).join(",");
    });
    const table = ["clips,fname,label,tag,probability,wrong", ...rows, ""].join("\n");
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([table], { type: "text/csv" }));
    link.download = "verdicts.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  });
}
