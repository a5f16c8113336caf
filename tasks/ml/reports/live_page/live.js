"use strict";

// What the page was made for: sizes, names and range of the model; see tasks/ml/live.py.
const about = JSON.parse(document.getElementById("about").textContent);
const element = (id) => document.getElementById(id);
const [height, width, colours = 1] = about.shape;
const cell = Math.max(1, Math.round(280 / Math.max(height, width)));
const brush = cell * Math.max(0.08 * Math.max(height, width), 1.2); // in pixels of the board
const board = element("board");
const ink = board.getContext("2d", { willReadFrequently: true });

let session; // of onnxruntime
let ort;
let picture = null; // the chosen file, decoded; null while the drawing is asked about
let given = null; // what the model is given: pixels, and where they come from

/** Gzipped bytes of a script element that is not run. */
async function unpacked(id) {
  const bytes = Uint8Array.from(atob(element(id).textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function load() {
  const address = URL.createObjectURL(new Blob([await unpacked("module")], { type: "text/javascript" }));
  ort = await import(address);
  ort.env.wasm.numThreads = 1; // more would need headers that a file has not
  ort.env.wasm.wasmBinary = await unpacked("wasm");
  const model = await unpacked("model");
  await check(model);
  session = await ort.InferenceSession.create(model);
}

/** Only where the browser lets a page compute digests: from a file, https or this machine. */
async function check(model) {
  if (!globalThis.crypto?.subtle) return;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", model));
  const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (found !== about.sha256) throw new Error(`expected sha256 ${about.sha256}, found ${found}`);
  element("checked").textContent = " (compared with the bytes that run here)";
}

/** How much each of `count` stretches of `step` from `first` holds of each of `size` points. */
function overlaps(first, step, count, size) {
  return Array.from({ length: count }, (_, index) => {
    const [low, high] = [first + index * step, first + (index + 1) * step];
    const held = [];
    for (let point = Math.max(0, Math.floor(low)); point < Math.min(size, high); point++) {
      held.push([point, (Math.min(high, point + 1) - Math.max(low, point)) / step]);
    }
    return held;
  });
}

/** The same as Pillow's bilinear filter has it: neighbours count the less the farther they are. */
function neighbours(step, count, size) {
  const reach = Math.max(step, 1);
  return Array.from({ length: count }, (_, index) => {
    const centre = (index + 0.5) * step;
    const held = [];
    const last = Math.min(size, Math.floor(centre + reach + 0.5));
    for (let point = Math.max(0, Math.floor(centre - reach + 0.5)); point < last; point++) {
      held.push([point, Math.max(0, 1 - Math.abs(point + 0.5 - centre) / reach)]);
    }
    const all = held.reduce((sum, [, weight]) => sum + weight, 0);
    return held.map(([point, weight]) => [point, Math.round((weight / all) * 2 ** 22) / 2 ** 22]); // Pillow's precision
  });
}

/** Average over areas: `(height, width)` values of a larger or smaller picture; outside of it they are 0. */
function averaged(values, columns, rows, { x = 0, y = 0, across = columns / width, down = rows / height } = {}) {
  return weighted(values, columns, rows, overlaps(x, across, width, columns), overlaps(y, down, height, rows));
}

/** Resize as the training images were, and as `hallmark predict` does it. */
function bilinear(values, columns, rows) {
  const [wide, high] = [neighbours(columns / width, width, columns), neighbours(rows / height, height, rows)];
  return weighted(values, columns, rows, wide, high, Math.round); // Pillow has whole numbers between the two
}

function weighted(values, columns, rows, wide, high, between = (value) => value) {
  const narrow = new Float64Array(rows * width);
  for (let row = 0; row < rows; row++) {
    wide.forEach((held, column) => {
      for (const [point, share] of held) narrow[row * width + column] += share * values[row * columns + point];
    });
  }
  for (let index = 0; index < narrow.length; index++) narrow[index] = between(narrow[index]);
  const small = new Float64Array(height * width);
  high.forEach((held, row) => {
    for (const [point, share] of held) {
      for (let column = 0; column < width; column++) small[row * width + column] += share * narrow[point * width + column];
    }
  });
  return small;
}

/** The drawing's values, 0 to 1, with its extent and its centre of mass; null if nothing is drawn. */
function drawn() {
  const { data } = ink.getImageData(0, 0, board.width, board.height);
  const values = Float64Array.from({ length: board.width * board.height }, (_, index) => data[4 * index] / 255);
  const box = { left: Infinity, right: -1, top: Infinity, bottom: -1 };
  let [mass, x, y] = [0, 0, 0];
  values.forEach((value, index) => {
    if (!value) return;
    const [column, row] = [index % board.width, Math.floor(index / board.width)];
    [box.left, box.right] = [Math.min(box.left, column), Math.max(box.right, column + 1)];
    [box.top, box.bottom] = [Math.min(box.top, row), Math.max(box.bottom, row + 1)];
    [mass, x, y] = [mass + value, x + value * (column + 0.5), y + value * (row + 0.5)];
  });
  return mass ? { values, side: Math.max(box.right - box.left, box.bottom - box.top), x: x / mass, y: y / mass } : null;
}

/** What the model is given of a drawing. */
function ofDrawing() {
  const found = drawn();
  if (!found) return null;
  let place;
  if (element("placed").checked) {
    const step = found.side / about.placement.side;
    place = { x: found.x - about.placement.x * step, y: found.y - about.placement.y * step, across: step, down: step };
  }
  const small = averaged(found.values, board.width, board.height, place);
  const level = (value) => Math.round(about.highest * Math.min(1, about.dark ? value : 1 - value));
  return { pixels: Uint8Array.from(small, level), origin: `Your drawing, as ${width} x ${height} pixels.` };
}

/** What the model is given of a picture: its own pixels where it has the size, else averages over areas. */
function ofPicture() {
  const { name, columns, rows, data } = picture;
  const said = [];
  let planes = [0, 1, 2].map((plane) => Float64Array.from({ length: columns * rows }, (_, i) => data[4 * i + plane]));
  if (colours === 1) {
    const [red, green, blue] = planes;
    if (red.some((value, i) => value !== green[i] || value !== blue[i])) said.push("made grey");
    // As Pillow does it: ITU-R 601-2.
    planes = [red.map((value, i) => (value * 19595 + green[i] * 38470 + blue[i] * 7471 + 32768) >> 16)];
  }
  if (columns !== width || rows !== height) {
    planes = planes.map((plane) => (about.resized ? bilinear : averaged)(plane, columns, rows));
    said.push(`resized from ${columns} x ${rows} ${about.resized ? "as the training images were" : "by averaging over areas"}`);
  }
  const largest = planes.reduce((most, plane) => plane.reduce((a, b) => Math.max(a, b), most), 0);
  const full = about.highest < 128 && largest > about.highest;
  if (full) said.push(`its values, 0 to 255, brought to 0 to ${about.highest}`);
  const top = about.highest < 128 ? about.highest : 255;
  const inverted = element("inverted").checked;
  if (inverted) said.push("light and dark turned around");
  const pixels = new Uint8Array(height * width * colours);
  planes.forEach((plane, index) => {
    plane.forEach((value, i) => {
      const level = Math.round(full ? (value * about.highest) / 255 : value);
      pixels[i * colours + index] = inverted ? top - level : level;
    });
  });
  return { pixels, origin: `${name}: ${said.join(", ") || "as it is, pixel by pixel"}.` };
}

/** Decode a file. What is transparent becomes white; what is very large is made smaller by the browser. */
async function decoded(file) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  const scale = Math.min(1, 2048 / Math.max(bitmap.width, bitmap.height));
  const [columns, rows] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)));
  const canvas = Object.assign(document.createElement("canvas"), { width: columns, height: rows });
  const context = canvas.getContext("2d");
  context.fillStyle = "white";
  context.fillRect(0, 0, columns, rows);
  context.drawImage(bitmap, 0, 0, columns, rows);
  return { name: file.name, columns, rows, data: context.getImageData(0, 0, columns, rows).data };
}

/** A PNG file with exactly these pixels: grey, or RGB. The browser's own would have colours and transparency. */
async function png(pixels) {
  const line = width * colours;
  const lines = new Uint8Array(height * (line + 1));
  for (let row = 0; row < height; row++) lines.set(pixels.subarray(row * line, (row + 1) * line), row * (line + 1) + 1);
  const stream = new Blob([lines]).stream().pipeThrough(new CompressionStream("deflate"));
  const packed = new Uint8Array(await new Response(stream).arrayBuffer());
  const size = new DataView(new ArrayBuffer(13));
  size.setUint32(0, width);
  size.setUint32(4, height);
  size.setUint8(8, 8); // bits
  size.setUint8(9, colours === 1 ? 0 : 2); // grey, or RGB
  const parts = [chunk("IHDR", new Uint8Array(size.buffer)), chunk("IDAT", packed), chunk("IEND", new Uint8Array(0))];
  return new Blob([new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]), ...parts], { type: "image/png" });
}

function chunk(name, content) {
  const bytes = new Uint8Array(content.length + 12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, content.length);
  bytes.set(new TextEncoder().encode(name), 4);
  bytes.set(content, 8);
  view.setUint32(content.length + 8, crc(bytes.subarray(4, content.length + 8)));
  return bytes;
}

/** CRC-32, as PNG has it. */
function crc(bytes) {
  let found = 0xffffffff;
  for (const byte of bytes) {
    found ^= byte;
    for (let bit = 0; bit < 8; bit++) found = found & 1 ? (found >>> 1) ^ 0xedb88320 : found >>> 1;
  }
  return (found ^ 0xffffffff) >>> 0;
}

let [isAsking, isAskedAgain] = [false, false];

/** Ask the model about the drawing or the picture; asked meanwhile, it is asked once more. */
async function ask({ aloud = true } = {}) {
  if (!session) return;
  isAskedAgain = isAsking;
  if (isAsking) return;
  isAsking = true;
  busy(true);
  try {
    given = picture ? ofPicture() : ofDrawing();
    if (given) await show(given, aloud);
    else rest();
  } catch (error) {
    fail(error);
  }
  isAsking = false;
  if (isAskedAgain) await ask();
  else busy(false);
}

async function show({ pixels, origin }, aloud) {
  const tensor = new ort.Tensor("uint8", pixels, [1, ...about.shape]);
  const { label, probabilities } = await session.run({ [about.input]: tensor });
  const best = Number(label.data[0]);
  list(Array.from(probabilities.data), best);
  element("answer").ariaLive = aloud ? "polite" : "off"; // not in the middle of a stroke
  say(`${about.classes[best]}, ${percent(probabilities.data[best])}`);
  paint(pixels);
  element("origin").textContent = origin;
  const link = element("save");
  URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(await png(pixels));
  element("table").hidden = element("fed").hidden = false;
}

/** Every class in its order, or the ten most probable of many. */
function list(probabilities, best) {
  let shown = probabilities.map((_, index) => index);
  if (shown.length > 20) shown = shown.sort((a, b) => probabilities[b] - probabilities[a]).slice(0, 10);
  const rows = shown.map((index) => {
    const row = document.createElement("tr");
    row.className = index === best ? "best" : "";
    const [name, bar, value] = ["th", "td", "td"].map((kind) => row.appendChild(document.createElement(kind)));
    name.scope = "row";
    name.textContent = name.title = about.classes[index];
    bar.appendChild(Object.assign(document.createElement("div"), { className: "bar" }));
    bar.firstChild.style.width = `${100 * probabilities[index]}%`;
    const exact = Object.assign(document.createElement("data"), { value: String(probabilities[index]) });
    exact.textContent = percent(probabilities[index]);
    value.appendChild(exact);
    return row;
  });
  element("table").tBodies[0].replaceChildren(...rows);
}

const percent = (share) => (share < 1 && share >= 0.9995 ? "over 99.9 %" : `${(100 * share).toFixed(1)} %`);

function paint(pixels) {
  const canvas = Object.assign(element("shown"), { width, height });
  const brightness = about.highest < 128 ? 255 / about.highest : 1;
  const data = new Uint8ClampedArray(4 * width * height).fill(255);
  for (let index = 0; index < width * height; index++) {
    for (let plane = 0; plane < 3; plane++) {
      data[4 * index + plane] = pixels[index * colours + (plane % colours)] * brightness;
    }
  }
  canvas.getContext("2d").putImageData(new ImageData(data, width, height), 0, 0);
}

function say(text, kind = "") {
  Object.assign(element("answer"), { textContent: text, className: kind });
}

/** For those who hear the page, and for whoever waits for it. */
function busy(isBusy) {
  element("answers").ariaBusy = String(isBusy);
}

function rest() {
  say(about.drawable ? "Draw, or choose a picture." : "Choose a picture.", "wait");
  element("table").hidden = element("fed").hidden = true;
}

function fail(error) {
  console.error(error);
  say(error.message ?? String(error), "bad");
  element("table").hidden = element("fed").hidden = true;
}

function clear() {
  [picture, given] = [null, null];
  element("file").value = "";
  ink.fillStyle = "black";
  ink.fillRect(0, 0, board.width, board.height);
  ask();
}

async function take(file) {
  if (!file) return;
  busy(true);
  try {
    picture = await decoded(file);
  } catch {
    picture = null;
    fail(new Error(`${file.name}: this browser cannot read it as a picture.`));
    busy(false);
    return;
  }
  await ask();
}

/** A line as thick as the brush, or a dot where it begins and ends at one place. */
function stroke(from, to) {
  picture = null;
  element("file").value = "";
  ink.strokeStyle = "white";
  ink.lineWidth = brush;
  ink.lineCap = ink.lineJoin = "round";
  ink.beginPath();
  ink.moveTo(from.x, from.y);
  ink.lineTo(to.x + 0.01, to.y);
  ink.stroke();
}

function byPointer() {
  let last = null;
  const place = (event) => {
    const box = board.getBoundingClientRect();
    const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    return { x: x * board.width, y: y * board.height };
  };
  board.addEventListener("pointerdown", (event) => {
    board.setPointerCapture(event.pointerId);
    last = place(event);
    stroke(last, last);
  });
  board.addEventListener("pointermove", (event) => {
    if (!last) return;
    for (const each of event.getCoalescedEvents?.() ?? [event]) {
      const next = place(each);
      stroke(last, next);
      last = next;
    }
    ask({ aloud: false });
  });
  const lift = () => {
    if (last) ask();
    last = null;
  };
  board.addEventListener("pointerup", lift);
  board.addEventListener("pointercancel", lift);
}

const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function byKeyboard() {
  const unit = Math.max(board.width, board.height) / 28;
  let at = { x: board.width / 2, y: board.height / 2 };
  let isDown = false;
  const pen = element("pen");
  const put = () => {
    pen.style.left = `${(100 * at.x) / board.width}%`;
    pen.style.top = `${(100 * at.y) / board.height}%`;
    pen.classList.toggle("down", isDown);
  };
  const within = (value, size) => Math.min(size, Math.max(0, value));
  board.addEventListener("keydown", (event) => {
    const move = MOVES[event.key];
    if (!move && ![" ", "Delete", "Backspace"].includes(event.key)) return;
    event.preventDefault();
    const before = at;
    if (move) at = { x: within(at.x + move[0] * unit, board.width), y: within(at.y + move[1] * unit, board.height) };
    else if (event.key === " ") isDown = !isDown;
    else clear();
    if (isDown && (move || event.key === " ")) {
      stroke(before, at);
      ask({ aloud: false });
    } else if (event.key === " ") ask();
    put();
  });
  board.addEventListener("blur", () => {
    isDown = false;
    put();
  });
  put();
}

function byFile() {
  element("file").addEventListener("change", (event) => take(event.target.files[0]));
  const over = (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", event.type === "dragover");
  };
  for (const kind of ["dragover", "dragleave", "drop"]) addEventListener(kind, over);
  addEventListener("drop", (event) => take(event.dataTransfer.files[0]));
}

function prepare() {
  [board.width, board.height] = [width * cell, height * cell];
  element("drawing").hidden = !about.drawable;
  board.parentElement.classList.toggle("light", !about.dark);
  if (about.drawable) {
    const { side, x, y } = about.placement;
    element("placing").textContent =
      `The drawing's longer side becomes ${side} pixels and its centre of mass is put at ${x}, ${y} of ` +
      `${width} x ${height}, as they are in training images; otherwise it stays where it is. ` +
      "Either way it is averaged over areas.";
    byPointer();
    byKeyboard();
    element("placed").addEventListener("change", () => ask());
  }
  const how = about.resized ? "as the training images were" : "by averaging over areas";
  element("sizes").textContent =
    `A picture of ${width} x ${height} pixels is taken as it is; any other is resized to that ${how}.`;
  byFile();
  element("clear").addEventListener("click", clear);
  element("inverted").addEventListener("change", () => ask());
  clear();
}

prepare();
load().then(() => ask(), (error) => fail(new Error(`The model cannot be run in this browser: ${error.message}`)));
