"use strict";
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const playerOf = (card) => card.querySelector("audio");

// Play one sound at a time, with a line that moves through its spectrogram.
for (const audio of all("audio")) {
  const spectrogram = audio.previousElementSibling;
  const line = spectrogram.lastElementChild;
  const follow = () => {
    line.style.left = `${(100 * audio.currentTime) / (audio.duration || 1)}%`;
    if (!audio.paused) requestAnimationFrame(follow);
  };
  const buttons = all(`.play[data-exemplar="${audio.parentElement.id}"]`);
  audio.addEventListener("play", () => {
    for (const other of all("audio")) if (other !== audio) other.pause();
    for (const button of buttons) button.setAttribute("aria-pressed", "true");
    spectrogram.classList.add("played");
    follow();
  });
  audio.addEventListener("pause", () => {
    for (const button of buttons) button.setAttribute("aria-pressed", "false");
  });
  audio.addEventListener("seeked", follow);
  spectrogram.addEventListener("click", (event) => {
    const { left, width } = spectrogram.getBoundingClientRect();
    audio.currentTime = ((event.clientX - left) / width) * (audio.duration || 0);
    audio.play();
  });
}
for (const button of all(".play")) {
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => {
    const audio = playerOf(document.getElementById(button.dataset.exemplar));
    if (audio.paused) {
      audio.currentTime = 0;
      audio.play();
    } else audio.pause();
  });
}

const form = document.querySelector(".filters");
if (form) {
  const cards = all(".clip");
  const filters = all("select", form).filter((select) => select.name !== "sort");
  const order = {
    confidence: (a, b) => b.confidence - a.confidence,
    labelProbability: (a, b) => a.labelProbability - b.labelProbability,
    seconds: (a, b) => b.seconds - a.seconds,
    label: (a, b) => a.label.localeCompare(b.label),
    tag: (a, b) => a.tag.localeCompare(b.tag),
    fname: (a, b) => a.fname.localeCompare(b.fname),
  };
  const show = () => {
    for (const card of cards) {
      card.hidden = filters.some(({ name, value }) => value && card.dataset[name] !== value);
      if (card.hidden) playerOf(card).pause();
    }
    const by = order[form.elements.sort.value];
    // Equal clips keep the order of confidence, which is that of the page.
    const sorted = [...cards].sort((a, b) => by(a.dataset, b.dataset));
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
  const cardsWithVerdict = () => cards.filter(verdictOf);
  for (const card of cards) {
    let stored = null;
    try {
      stored = localStorage.getItem(keyOf(card.dataset));
    } catch {
      // This browser stores nothing for local files.
    }
    for (const input of all(".verdict input", card)) {
      input.checked = input.value === stored;
      input.addEventListener("change", () => {
        save.disabled = false;
        try {
          localStorage.setItem(keyOf(card.dataset), input.value);
        } catch {
          // As above.
        }
      });
    }
  }
  save.disabled = cardsWithVerdict().length === 0;
  save.addEventListener("click", () => {
    const quoted = (text) => `"${String(text).replaceAll('"', '""')}"`;
    const rows = cardsWithVerdict().map((card) => {
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
