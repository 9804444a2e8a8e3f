// The screen of label cleaning. It draws the state that the kernel sends and hands keys on to it; a decision
// is only shown as made once the kernel has answered that it is on disk.
//
// File names, and with them all other text, are not trusted: they reach the page as text nodes only.

const ANSWER_WITHIN = 3000; // milliseconds until the kernel is reported as silent
const PHOTOS_KEPT = 64;
const KEYS_WAITING = 20; // typed ahead while an answer is awaited; a person is never further ahead
// Of a mode's keys those always in view, beside those of each attribute; else 4. ? shows all.
const HINTS = { relabel: 2, suspects: 3 };
const MODES = { inspect: "Inspect", grid: "Grid", review: "Review", relabel: "Relabel", suspects: "Suspects" };
const CLASS_KEYS = [", .", "class before / after"];
const UNDO_KEY = ["u", "undo"];
const SCREEN_KEYS = [
  ["⇧1 ⇧2 ⇧3 ⇧4 ⇧5", "the five modes, in the order of the bar"],
  ["r", "read the decisions again from disk"],
];
const SILENT =
  "No answer from the kernel for 3 seconds: it is busy, or it has died. Nothing more is taken until it answers. " +
  "Entries with a full dot are on disk; those with a ring are not confirmed. Press r to ask again. " +
  "If the kernel has died, restart it and run the cells again: the state comes back from disk.";
const GONE =
  "The kernel has died or was restarted. Every entry with a full dot is on disk. " +
  "Run the notebook's cells again: they go on from there.";

function element(kind, name, ...children) {
  const node = document.createElement(kind);
  if (name) node.className = `label-review-${name}`;
  node.append(...children);
  return node;
}

// What a key means, whatever the keyboard: null for a key that only modifies others.
function nameOfKey(event) {
  const digit = /^Digit([1-5])$/.exec(event.code);
  // The other level of a digit key: Shift+1 here, the bare key where digits need Shift.
  if (digit && !/^\d$/.test(event.key)) return `mode ${digit[1]}`;
  if (event.shiftKey && ["Enter", " ", "Backspace"].includes(event.key)) return null;
  if (event.key.length === 1 && event.key <= "~") return event.key;
  const letter = /^Key([A-Z])$/.exec(event.code);
  // Hangul and other scripts: the letter that is printed at that place of the keyboard.
  if (letter && (event.key.length === 1 || event.key === "Process")) {
    return event.shiftKey ? letter[1] : letter[1].toLowerCase();
  }
  return /^(Arrow\w+|Enter|Backspace|Escape|Page\w+|Home|End)$/.test(event.key) ? event.key : null;
}

// Photos by path, decoded ahead of time; the least recently wanted are let go.
class Photos {
  constructor(ask, ready) {
    this.ask = ask;
    this.ready = ready;
    this.kept = new Map(); // path -> {url, image, ready, error}, least recently wanted first
    this.asked = new Map(); // path -> when
  }

  want(paths) {
    const now = performance.now();
    for (const path of paths.filter((path) => this.kept.has(path))) {
      const photo = this.kept.get(path);
      this.kept.delete(path);
      this.kept.set(path, photo);
    }
    const isAwaited = (path) => now - (this.asked.get(path) ?? -Infinity) < ANSWER_WITHIN;
    const missing = [...new Set(paths)].filter((path) => !this.kept.has(path) && !isAwaited(path));
    missing.forEach((path) => this.asked.set(path, now));
    if (missing.length) this.ask(missing);
    for (const path of [...this.kept.keys()].slice(0, Math.max(0, this.kept.size - this.limit(paths)))) this.drop(path);
  }

  limit(paths) {
    return Math.max(PHOTOS_KEPT, 2 * paths.length); // what is in view must never push itself out
  }

  receive({ path, mime, error }, bytes) {
    // Another view may have asked; what was not asked for here is not kept here.
    if (!this.asked.delete(path) || this.kept.has(path)) return;
    const photo = { ready: false, error };
    this.kept.set(path, photo);
    if (error) return this.ready(path);
    photo.url = URL.createObjectURL(new Blob([bytes], { type: mime }));
    photo.image = element("img", "photo");
    photo.image.alt = "";
    photo.image.draggable = false;
    photo.image.src = photo.url;
    const done = (changes) => {
      Object.assign(photo, changes);
      this.ready(path);
    };
    photo.image.decode().then(
      () => done({ ready: true }),
      () => done({ error: "This photo cannot be drawn: its bytes are no picture that a browser knows." }),
    );
  }

  drop(path) {
    const { url } = this.kept.get(path);
    if (url) URL.revokeObjectURL(url);
    this.kept.delete(path);
  }

  clear() {
    [...this.kept.keys()].forEach((path) => this.drop(path));
    this.asked.clear();
  }
}

// The messages to and from the kernel: what was sent and not answered, and what the screen shows until it is.
class Connection {
  constructor(model, changed) {
    this.model = model;
    this.changed = changed;
    this.view = `${performance.now()}.${Math.random()}`;
    this.sequence = 0;
    this.screen = null;
    this.moves = {}; // keys that lead one photo on (1) or back (-1)
    this.options = {}; // what the mode was started with
    this.attributes = []; // their names
    this.vocabulary = []; // per class the word of each attribute
    this.unanswered = []; // {sequence, time, key, text, move}; move is null where the next photo cannot be predicted
    this.waiting = []; // keys that follow one whose outcome cannot be predicted
    this.trouble = null; // {text, kind}; while it stands no decision is taken
    this.note = "";
  }

  post(message) {
    try {
      this.model.send(message);
    } catch {
      // The connection of a dead kernel refuses to send.
      this.stop("gone", GONE);
    }
  }

  // Photos are no part of the state: their answers carry their paths and may come at any time.
  ask(paths) {
    this.post({ type: "photos", paths, view: this.view, sequence: this.sequence });
  }

  send(message, { key = null, text = "", move = null } = {}) {
    this.sequence += 1;
    this.unanswered.push({ sequence: this.sequence, time: performance.now(), key, text, move });
    this.post({ ...message, view: this.view, sequence: this.sequence });
  }

  stop(kind, text) {
    this.trouble = { kind, text };
    this.waiting = [];
    this.changed();
  }

  hello() {
    this.waiting = [];
    this.send({ type: "hello", path: null });
    this.changed();
  }

  start(mode, options) {
    if (this.trouble || !this.screen) return;
    this.waiting = [];
    this.options = options; // the next step, if it is quicker than the answer, counts from here
    this.send({ type: "start", path: null, mode, options });
    this.changed();
  }

  // The cards before, at and after the place where the kernel's last answer stood, and how far the keys since lead.
  line() {
    const { previous, current, upcoming } = this.screen;
    const ahead = this.unanswered.reduce((sum, one) => sum + (one.move ?? 0), 0);
    return { cards: [...previous, current, ...upcoming], index: previous.length + ahead };
  }

  card() {
    if (!this.screen?.current) return null;
    const { cards, index } = this.line();
    return cards[index];
  }

  // Where a key leads: +1 or -1 along the line, null where only the kernel knows.
  predict(key) {
    const isAhead = ({ key, move }) => move === 1 && !isArrow(key);
    const isPlain = this.screen.pending === "" && !isArrow(key) && this.unanswered.every(isAhead);
    const move = this.unanswered.length && !isPlain ? undefined : this.moves[key];
    const { cards, index } = this.line();
    return move !== undefined && cards[index + move] ? move : null;
  }

  press(key) {
    if (this.trouble || !this.screen || this.waiting.length >= KEYS_WAITING) return;
    this.waiting.push(key);
    this.sendNext();
  }

  sendNext() {
    while (this.waiting.length && !this.trouble && this.unanswered.every(({ move }) => move !== null)) {
      const key = this.waiting.shift();
      const path = this.card()?.path ?? null;
      this.note = "";
      this.send({ type: "press", path, key }, { key, text: this.meaning(key), move: this.predict(key) });
    }
    this.changed();
  }

  meaning(key) {
    if (isArrow(key)) return "";
    const shown = key === " " ? "Space" : key;
    const meaning = this.screen.keys.find(([names]) => names.split(" ").includes(shown))?.[1];
    return `${shown}: ${meaning ?? "…"}`;
  }

  receive(message) {
    const { screen, moves, options, attributes, vocabulary } = message;
    if (vocabulary) Object.assign(this, { attributes, vocabulary });
    if (screen) Object.assign(this, { screen, moves, options });
    if (message.view === this.view) this.resolve(message);
    this.sendNext();
  }

  // Answers come in the order of the questions: what is older than this one is settled as well.
  resolve(message) {
    this.unanswered = this.unanswered.filter(({ sequence }) => sequence > message.sequence);
    this.note = message.message;
    if (message.failed) return this.stop("failed", `${message.message} Press r once this is mended.`);
    if (message.stale) return this.stop("stale", `${message.message} Press r to go on from the latest state.`);
    const isReload = message.vocabulary !== undefined;
    if (isReload || (this.trouble?.kind === "silent" && !this.unanswered.length)) this.trouble = null;
  }

  tick() {
    const [oldest] = this.unanswered;
    if (!this.trouble && oldest && performance.now() - oldest.time > ANSWER_WITHIN) this.stop("silent", SILENT);
  }
}

function isArrow(key) {
  return /^Arrow/.test(key);
}

function keyCaps(names) {
  return names.split(" ").map((name) => element("kbd", "", name));
}

function keyTable(rows) {
  const table = element("table", "keys");
  for (const [names, meaning] of rows) {
    table.append(element("tr", "", element("td", "", ...keyCaps(names)), element("td", "", meaning)));
  }
  return table;
}

// What a label claims, a chip for each attribute; where a suggestion differs, the chip shows from what to what.
function chips(attributes, words, suggested) {
  return words.map((word, part) => {
    const chip = element("div", "chip", element("small", "", attributes[part]));
    const differs = suggested && suggested[part] !== word;
    chip.append(element(differs ? "s" : "b", "", word));
    if (differs) {
      chip.classList.add("label-review-differs");
      chip.append(element("b", "", `→ ${suggested[part]}`));
    }
    return chip;
  });
}

function isSuspect(card) {
  return card?.suggested != null && card.suggested !== card.label;
}

// All classes with their numbers, a column for each value of the last attribute: what it says now, what is
// suggested, what may still come of what was typed so far.
function classMap(vocabulary, card, typed) {
  const columns = new Set(vocabulary.map((words) => words.at(-1))).size;
  const digits = String(vocabulary.length - 1).length;
  const table = element("table", "classes");
  const head = vocabulary.slice(0, columns).map((words) => element("th", "", words.at(-1)));
  table.append(element("tr", "", element("th", ""), ...head));
  vocabulary.forEach((words, label) => {
    if (label % columns === 0) table.append(element("tr", "", element("th", "", words.slice(0, -1).join(" "))));
    const cell = element("td", "", String(label).padStart(digits, "0"));
    cell.classList.toggle("label-review-now", label === card.label);
    cell.classList.toggle("label-review-suggested", label === card.suggested && isSuspect(card));
    cell.classList.toggle("label-review-typed", typed.includes(label));
    table.lastChild.append(cell);
  });
  return table;
}

function badges(card) {
  const badge = (kind, text) => element("span", kind ? `badge label-review-${kind}` : "badge", text);
  const found = [];
  if (card.mark === "wrong" && !card.verdict) found.push(badge("wrong", "✗ marked wrong"));
  if (card.mark === "right") found.push(badge("right", "✓ right"));
  if (card.verdict === "confirmed") found.push(badge("wrong", "✗ confirmed wrong"));
  if (card.verdict === "drop") found.push(badge("", "dropped from training"));
  if (card.flag) found.push(badge("flag", "⚑ flagged"));
  return found;
}

function minutesText(minutes) {
  if (minutes < 1) return "less than a minute left";
  return minutes < 90 ? `about ${Math.round(minutes)} min left` : `about ${(minutes / 60).toFixed(1)} h left`;
}

class View {
  constructor(model, host) {
    this.connection = new Connection(model, () => this.draw());
    this.photos = new Photos(
      (paths) => this.connection.ask(paths),
      () => this.draw(),
    );
    this.zoomed = false;
    this.helping = false;
    this.build();
    host.append(this.root);
    this.listen();
  }

  build() {
    this.modes = Object.entries(MODES).map(([mode, name], number) => {
      const button = element("button", "mode", element("kbd", "", `⇧${number + 1}`), name);
      button.onclick = () => this.changeMode(mode);
      button.dataset.mode = mode;
      return button;
    });
    this.helpButton = element("button", "mode", element("kbd", "", "?"), "Keys");
    this.helpButton.onclick = () => this.toggleHelp();
    this.title = element("div", "title");
    this.photo = element("div", "fit");
    this.badges = element("div", "badges");
    this.path = element("div", "path");
    this.stage = element("div", "stage", this.photo, this.badges, this.path);
    this.page = element("div", "page");
    this.claim = element("div", "claim");
    this.why = element("div", "why");
    this.pending = element("div", "pending");
    this.scope = element("div", "scope", "This decision is for the whole person");
    this.classes = element("div", "map");
    this.recent = element("ol", "recent");
    this.hints = element("div", "hints");
    this.bar = element("div", "done");
    this.progress = element("div", "progress");
    this.message = element("div", "message");
    this.message.setAttribute("role", "status");
    this.noticeText = element("p", "");
    this.retry = element("button", "retry", element("kbd", "", "r"), "Read the state again");
    this.retry.onclick = () => this.connection.hello();
    this.notice = element("div", "notice", this.noticeText, this.retry);
    this.notice.setAttribute("role", "alert");
    this.help = element("div", "help");
    this.wake = element("div", "wake", "Click here to use the keyboard");
    const side = element("div", "side", this.claim, this.why, this.scope, this.classes, this.pending);
    side.append(element("h4", "", "Last decisions"), this.recent);
    const views = element("div", "views", this.stage, this.page, this.wake, this.help);
    const frame = element("div", "frame");
    frame.append(element("div", "top", ...this.modes, this.helpButton), this.title, this.notice);
    this.body = element("div", "body", views, side);
    frame.append(this.body, this.hints, element("div", "track", this.bar));
    frame.append(element("div", "bottom", this.progress, this.message));
    this.root = element("div", "root", frame);
    this.root.tabIndex = 0;
    this.root.dataset.lmSuppressShortcuts = "true"; // JupyterLab and Notebook leave such a node's keys alone
    this.root.setAttribute("role", "application");
    this.root.setAttribute("aria-label", "Label cleaning by key presses");
    frame.querySelectorAll("button").forEach((button) => (button.tabIndex = -1));
  }

  listen() {
    this.root.addEventListener("keydown", (event) => this.onKey(event));
    this.root.addEventListener("mousedown", (event) => {
      event.preventDefault(); // a button that takes the focus would take the keys too
      this.root.focus({ preventScroll: true });
    });
    this.stage.addEventListener("mousemove", (event) => {
      const box = this.stage.getBoundingClientRect();
      this.photo.style.transformOrigin =
        `${(100 * (event.clientX - box.left)) / box.width}% ${(100 * (event.clientY - box.top)) / box.height}%`;
    });
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.key === "Tab" || /^F\d+$/.test(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    const key = event.repeat ? null : nameOfKey(event);
    if (key !== null) this.take(key);
  }

  take(key) {
    if (this.helping || key === "?") return this.toggleHelp();
    if (key === "z" || (key === "Escape" && this.zoomed)) return this.toggleZoom();
    if (key === "r") return this.connection.hello();
    if (key.startsWith("mode ")) return this.changeMode(Object.keys(MODES)[Number(key.at(-1)) - 1]);
    if (this.isGrid() && (key === "," || key === ".")) return this.changeClass(key === "," ? -1 : 1);
    if (key !== "Escape" || this.connection.screen?.pending) this.connection.press(key);
  }

  isGrid() {
    return this.connection.screen?.mode === "grid";
  }

  toggleHelp() {
    this.helping = !this.helping;
    this.draw();
  }

  toggleZoom() {
    this.zoomed = !this.zoomed;
    this.draw();
  }

  changeMode(mode) {
    this.zoomed = false;
    this.connection.start(mode, mode === "grid" ? { label: this.connection.card()?.label ?? 0 } : {});
  }

  changeClass(step) {
    const { options, vocabulary } = this.connection;
    const label = ((options.label ?? 0) + step + vocabulary.length) % vocabulary.length;
    this.connection.start("grid", { ...options, label });
  }

  receive(message, buffers) {
    if (message.type === "photo") return this.photos.receive(message, buffers[0]);
    if (message.type === "screen") this.connection.receive(message);
  }

  draw() {
    const { screen, trouble } = this.connection;
    this.notice.hidden = !trouble;
    this.noticeText.textContent = trouble?.text ?? "";
    this.help.hidden = !this.helping;
    if (!screen) return void (this.title.textContent = "Waiting for the kernel …");
    const card = this.isGrid() ? screen.page[screen.cursor] : this.connection.card();
    // A photo that is in view already comes first; the rest of the screen follows in the same frame.
    this.drawPhoto(card);
    this.drawPage(screen);
    this.drawClaim(card);
    this.drawRest(screen);
    if (this.helping) this.drawHelp(screen);
    this.prefetch(screen);
  }

  prefetch(screen) {
    const cards = this.isGrid() ? screen.page : this.connection.line().cards;
    const next = screen.upcoming.filter((card) => !cards.includes(card));
    this.photos.want([...cards, ...next].filter(Boolean).map(({ path }) => path));
  }

  drawPhoto(card) {
    this.stage.hidden = this.isGrid() && !this.zoomed;
    this.stage.classList.toggle("label-review-zoomed", this.zoomed && !this.isGrid());
    const photo = card && this.photos.kept.get(card.path);
    const nothing = card ? photo?.error ?? "Loading …" : "Nothing is left in this mode.";
    const isShown = photo?.ready
      ? this.photo.firstChild === photo.image
      : !this.photo.children.length && this.photo.textContent === nothing;
    if (!isShown) this.photo.replaceChildren(photo?.ready ? photo.image : nothing);
    this.stage.dataset.path = photo?.ready ? card.path : "";
    this.badges.replaceChildren(...(card ? badges(card) : []));
    this.path.textContent = card ? card.path : "";
  }

  drawPage(screen) {
    this.page.hidden = !this.isGrid() || this.zoomed;
    this.body.classList.toggle("label-review-wide", this.isGrid());
    this.page.style.setProperty("--columns", screen.columns);
    this.page.style.setProperty("--rows", Math.max(3, Math.ceil(screen.page.length / screen.columns)));
    if (!this.isGrid()) return void this.page.replaceChildren();
    const shown = [...this.page.children].map((cell) => cell.dataset.path);
    const isSame = shown.length === screen.page.length && screen.page.every(({ path }, at) => path === shown[at]);
    if (!isSame) this.page.replaceChildren(...screen.page.map((card) => this.thumbnail(card)));
    screen.page.forEach((card, at) => this.drawThumbnail(this.page.children[at], card, at === screen.cursor));
  }

  thumbnail(card) {
    const cell = element("div", "cell", element("span", "tag"));
    cell.dataset.path = card.path;
    cell.title = card.path;
    return cell;
  }

  drawThumbnail(cell, card, isCursor) {
    const photo = this.photos.kept.get(card.path);
    if (photo?.ready && !cell.querySelector("img")) {
      const image = element("img", "");
      image.alt = "";
      image.src = photo.url;
      cell.prepend(image);
    }
    const tags = { wrong: "✗ wrong", right: "✓" };
    cell.querySelector("span").textContent = photo?.error ? "cannot be read" : tags[card.mark] ?? "";
    cell.classList.toggle("label-review-wrong", card.mark === "wrong");
    cell.classList.toggle("label-review-cursor", isCursor);
  }

  drawClaim(card) {
    const { attributes, vocabulary, screen } = this.connection;
    const suggested = isSuspect(card) ? vocabulary[card.suggested] : null;
    this.claim.replaceChildren(...(card ? chips(attributes, vocabulary[card.label], suggested) : []));
    const number = card?.number ? ` · ${card.number} in the table` : "";
    const facts = card ? [`class ${card.label}${number}`, element("br"), `person ${card.person}`] : [];
    this.why.replaceChildren(element("div", "person", ...facts));
    if (card?.why && isSuspect(card)) {
      const score = element("small", "", card.score == null ? "" : ` score ${card.score.toFixed(2)}`);
      this.why.append(element("div", "reason", element("b", "", "Why: "), card.why, score));
    } else if (card?.why && screen.mode === "suspects") {
      this.why.append(element("div", "person", card.why));
    }
    const isRelabel = card && (screen.mode === "relabel" || screen.mode === "suspects");
    this.classes.replaceChildren(...(isRelabel ? [classMap(vocabulary, card, screen.typed)] : []));
  }

  drawRest(screen) {
    const { unanswered, note, trouble } = this.connection;
    this.modes.forEach((button) => button.setAttribute("aria-pressed", button.dataset.mode === screen.mode));
    this.title.textContent = screen.title;
    const hint = ([names, meaning]) => element("span", "", ...keyCaps(names), ` ${meaning.split(";")[0]}`);
    this.hints.replaceChildren(...this.hinted(screen).map(hint));
    this.pending.textContent = screen.pending;
    this.pending.hidden = !screen.pending;
    this.scope.hidden = screen.scope !== "person";
    const entry = (name, text, title) => {
      const item = element("li", name, text);
      item.title = title;
      return item;
    };
    const sent = unanswered.filter(({ text }) => text).reverse();
    const open = sent.map(({ text }) => entry("open", text, trouble ? "not confirmed" : "on its way to the disk"));
    const kept = screen.recent.map(({ id, text, path, undone }) => {
      const item = entry(undone ? "kept label-review-undone" : "kept", text, path);
      item.append(element("small", "", ` ${path}`));
      item.dataset.id = id;
      return item;
    });
    this.recent.replaceChildren(...[...open, ...kept].slice(0, 10));
    const { done, total, per_minute: pace, minutes_left: minutes } = screen.progress;
    this.bar.style.width = `${total ? (100 * done) / total : 0}%`;
    const parts = [`${done.toLocaleString("en")} of ${total.toLocaleString("en")}`];
    if (pace != null) parts.push(`${Math.round(pace)} photos a minute`);
    if (minutes != null) parts.push(minutesText(minutes));
    this.progress.textContent = parts.join(" · ");
    this.message.textContent = trouble ? "" : note || screen.message || screen.problems?.at(-1) || "";
  }

  hinted({ mode, keys }) {
    const count = mode in HINTS ? HINTS[mode] + this.connection.attributes.length : 4;
    return [...keys.slice(0, count), ...(mode === "grid" ? [CLASS_KEYS] : []), UNDO_KEY];
  }

  drawHelp(screen) {
    const keys = [...screen.keys, ...(this.isGrid() ? [CLASS_KEYS] : [])];
    this.help.replaceChildren(element("h3", "", `Keys: ${MODES[screen.mode]}`), keyTable(keys));
    this.help.append(element("h3", "", "Always"), keyTable(SCREEN_KEYS));
  }
}

export default {
  render({ model, el }) {
    const view = new View(model, el);
    const onMessage = (message, buffers) => view.receive(message, buffers);
    const onConnection = () => view.connection.hello(); // a dead kernel refuses it or stays silent
    model.on("msg:custom", onMessage);
    model.on("comm_live_update", onConnection);
    const timer = setInterval(() => view.connection.tick(), 250);
    view.connection.hello();
    return () => {
      clearInterval(timer);
      model.off("msg:custom", onMessage);
      model.off("comm_live_update", onConnection);
      view.photos.clear();
    };
  },
};
