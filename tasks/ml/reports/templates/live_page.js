"use strict";

// Facts about the model; see `about` in live_page/live_folder.py.
const about = JSON.parse(document.getElementById("about").textContent);
const element = (id) => document.getElementById(id);
const [height, width, colours = 1] = about.shape;
const cell = Math.max(1, Math.round(280 / Math.max(height, width)));
const brush = cell * Math.max(0.08 * Math.max(height, width), 1.2); // in pixels of the board
const board = element("board");
const ink = board.getContext("2d", { willReadFrequently: true });

let session; // onnxruntime's inference session
let ort;
let picture = null; // the decoded file; null while the drawing is the input
let given = null; // the input of the model: pixels, and a description of their origin

/** Unpack the gzipped bytes in a script element that holds data. */
async function unpacked(id) {
  const bytes = Uint8Array.from(atob(element(id).textContent), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function load() {
  const address = URL.createObjectURL(new Blob([await unpacked("module")], { type: "text/javascript" }));
  ort = await import(address);
  ort.env.wasm.numThreads = 1; // threads need HTTP headers, which a local file does not have
  ort.env.wasm.wasmBinary = await unpacked("wasm");
  const model = await unpacked("model");
  await check(model);
  session = await ort.InferenceSession.create(model);
}

/** Check the digest of the model. Browsers offer this only to local files, https and localhost. */
async function check(model) {
  if (!globalThis.crypto?.subtle) return;
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", model));
  const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (found !== about.sha256) throw new Error(`expected sha256 ${about.sha256}, found ${found}`);
  element("checked").textContent = " (verified by this page)";
}

/** Weights of `size` points in each of `count` intervals of length `step`, the first starting at `first`. */
function overlaps(first, step, count, size) {
  return Array.from({ length: count }, (_, index) => {
    const [low, high] = [first + index * step, first + (index + 1) * step];
    const parts = [];
    for (let point = Math.max(0, Math.floor(low)); point < Math.min(size, high); point++) {
      parts.push([point, (Math.min(high, point + 1) - Math.max(low, point)) / step]);
    }
    return parts;
  });
}

/** The same weights for Pillow's bilinear filter, in which the weight falls with the distance. */
function neighbours(step, count, size) {
  const reach = Math.max(step, 1);
  return Array.from({ length: count }, (_, index) => {
    const centre = (index + 0.5) * step;
    const parts = [];
    const last = Math.min(size, Math.floor(centre + reach + 0.5));
    for (let point = Math.max(0, Math.floor(centre - reach + 0.5)); point < last; point++) {
      parts.push([point, Math.max(0, 1 - Math.abs(point + 0.5 - centre) / reach)]);
    }
    const all = parts.reduce((sum, [, weight]) => sum + weight, 0);
    return parts.map(([point, weight]) => [point, Math.round((weight / all) * 2 ** 22) / 2 ** 22]); // Pillow's precision
  });
}

/** Resize a picture to `(height, width)` by averaging areas. Values outside of it are 0. */
function averaged(values, columns, rows, { x = 0, y = 0, across = columns / width, down = rows / height } = {}) {
  return weighted(values, columns, rows, overlaps(x, across, width, columns), overlaps(y, down, height, rows));
}

/** Resize a picture as the training images were resized, and as `hallmark predict` does. */
function bilinear(values, columns, rows) {
  const [wide, high] = [neighbours(columns / width, width, columns), neighbours(rows / height, height, rows)];
  return weighted(values, columns, rows, wide, high, Math.round); // Pillow rounds between the two passes
}

function weighted(values, columns, rows, wide, high, between = (value) => value) {
  const narrow = new Float64Array(rows * width);
  for (let row = 0; row < rows; row++) {
    wide.forEach((parts, column) => {
      for (const [point, share] of parts) narrow[row * width + column] += share * values[row * columns + point];
    });
  }
  for (let index = 0; index < narrow.length; index++) narrow[index] = between(narrow[index]);
  const small = new Float64Array(height * width);
  high.forEach((parts, row) => {
    for (const [point, share] of parts) {
      for (let column = 0; column < width; column++) small[row * width + column] += share * narrow[point * width + column];
    }
  });
  return small;
}

/** The drawing's values from 0 to 1, its longer side and its centre of mass; null if it is empty. */
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

/** The input of the model for the drawing. */
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
  return { pixels: Uint8Array.from(small, level), origin: `Your drawing, reduced to ${width} x ${height} pixels.` };
}

/** The input of the model for a picture: its own pixels if the size matches, else resized. */
function ofPicture() {
  const { name, columns, rows, data } = picture;
  const changes = [];
  let planes = [0, 1, 2].map((plane) => Float64Array.from({ length: columns * rows }, (_, i) => data[4 * i + plane]));
  if (colours === 1) {
    const [red, green, blue] = planes;
    if (red.some((value, i) => value !== green[i] || value !== blue[i])) changes.push("converted to grey");
    // ITU-R 601-2, as in Pillow.
    planes = [red.map((value, i) => (value * 19595 + green[i] * 38470 + blue[i] * 7471 + 32768) >> 16)];
  }
  if (columns !== width || rows !== height) {
    planes = planes.map((plane) => (about.resized ? bilinear : averaged)(plane, columns, rows));
    changes.push(`resized from ${columns} x ${rows} ${about.resized ? "as the training images were" : "by averaging areas"}`);
  }
  const largest = planes.reduce((most, plane) => plane.reduce((a, b) => Math.max(a, b), most), 0);
  const full = largest > about.white; // never for photos: see `about` in live_folder.py
  if (full) changes.push(`values scaled from 0..255 to 0..${about.white}`);
  const inverted = element("inverted").checked;
  if (inverted) changes.push("inverted");
  const pixels = new Uint8Array(height * width * colours);
  planes.forEach((plane, index) => {
    plane.forEach((value, i) => {
      const level = Math.round(full ? (value * about.white) / 255 : value);
      pixels[i * colours + index] = inverted ? about.white - level : level;
    });
  });
  return { pixels, origin: `${name}: ${changes.join(", ") || "used unchanged"}.` };
}

/** Decode a file. Transparent areas become white or black, as in training, and very large pictures are reduced by the browser. */
async function decoded(file) {
  const head = new Uint8Array(await file.slice(0, 25).arrayBuffer());
  if (head[1] === 80 && head[24] === 16) throw new Error("it has more than eight bits: convert it to eight bits.");
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none" });
  const scale = Math.min(1, 2048 / Math.max(bitmap.width, bitmap.height));
  const [columns, rows] = [bitmap.width, bitmap.height].map((side) => Math.max(1, Math.round(side * scale)));
  const canvas = Object.assign(document.createElement("canvas"), { width: columns, height: rows });
  const context = canvas.getContext("2d");
  context.fillStyle = about.background;
  context.fillRect(0, 0, columns, rows);
  context.drawImage(bitmap, 0, 0, columns, rows);
  return { name: file.name, columns, rows, data: context.getImageData(0, 0, columns, rows).data };
}

/** A PNG file with exactly these pixels, grey or RGB. The browser's own encoder always writes RGBA. */
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

/** CRC-32, as defined by PNG. */
function crc(bytes) {
  let found = 0xffffffff;
  for (const byte of bytes) {
    found ^= byte;
    for (let bit = 0; bit < 8; bit++) found = found & 1 ? (found >>> 1) ^ 0xedb88320 : found >>> 1;
  }
  return (found ^ 0xffffffff) >>> 0;
}

let [isPredicting, isOutdated] = [false, false];

/** Predict the drawing or the picture, and once more if it changed in the meantime. */
async function predict({ announced = true } = {}) {
  if (!session) return;
  isOutdated = isPredicting;
  if (isPredicting) return;
  isPredicting = true;
  busy(true);
  try {
    given = picture ? ofPicture() : ofDrawing();
    if (given) await show(given, announced);
    else rest();
  } catch (error) {
    fail(error);
  }
  isPredicting = false;
  if (isOutdated) await predict();
  else busy(false);
}

async function show({ pixels, origin }, announced) {
  const tensor = new ort.Tensor("uint8", pixels, [1, ...about.shape]);
  const { label, probabilities } = await session.run({ [about.input]: tensor });
  const best = Number(label.data[0]);
  list(Array.from(probabilities.data), best);
  element("answer").ariaLive = announced ? "polite" : "off"; // silent in the middle of a stroke
  setAnswer(`${about.classes[best]}, ${percent(probabilities.data[best])}`);
  paint(pixels);
  element("origin").textContent = origin;
  const link = element("save");
  URL.revokeObjectURL(link.href);
  link.href = URL.createObjectURL(await png(pixels));
  element("table").hidden = element("fed").hidden = false;
}

/** List all classes, or the ten most probable if there are more than 20. */
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
  const brightness = 255 / about.white;
  const data = new Uint8ClampedArray(4 * width * height).fill(255);
  for (let index = 0; index < width * height; index++) {
    for (let plane = 0; plane < 3; plane++) {
      data[4 * index + plane] = pixels[index * colours + (plane % colours)] * brightness;
    }
  }
  canvas.getContext("2d").putImageData(new ImageData(data, width, height), 0, 0);
}

function setAnswer(text, kind = "") {
  Object.assign(element("answer"), { textContent: text, className: kind });
}

/** Tell screen readers, and tests, whether a prediction is running. */
function busy(isBusy) {
  element("answers").ariaBusy = String(isBusy);
}

function rest() {
  setAnswer(about.drawable ? "Draw, or choose a picture." : "Choose a picture.", "wait");
  element("table").hidden = element("fed").hidden = true;
}

function fail(error) {
  console.error(error);
  setAnswer(error.message ?? String(error), "bad");
  element("table").hidden = element("fed").hidden = true;
}

function clear() {
  [picture, given] = [null, null];
  element("file").value = "";
  ink.fillStyle = "black";
  ink.fillRect(0, 0, board.width, board.height);
  predict();
}

async function take(file) {
  if (!file) return;
  busy(true);
  try {
    picture = await decoded(file);
  } catch (error) {
    picture = null;
    const reason = error instanceof DOMException ? "this browser cannot read it as a picture." : error.message;
    fail(new Error(`${file.name}: ${reason}`));
    busy(false);
    return;
  }
  await predict();
}

/** Draw a line with the brush, or a dot if both ends are the same. */
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
    predict({ announced: false });
  });
  const lift = () => {
    if (last) predict();
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
      predict({ announced: false });
    } else if (event.key === " ") predict();
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
      `The longer side of the drawing is scaled to ${side} pixels, and its centre of mass is moved to ${x}, ${y} of ` +
      `${width} x ${height}, as in the training images. If unchecked, it stays where it is. ` +
      "In both cases it is reduced by averaging areas.";
    byPointer();
    byKeyboard();
    element("placed").addEventListener("change", () => predict());
  }
  const how = about.resized ? "as the training images were" : "by averaging areas";
  element("sizes").textContent =
    `Pictures of ${width} x ${height} pixels are used unchanged. Other sizes are resized ${how}.`;
  byFile();
  element("clear").addEventListener("click", clear);
  element("inverted").addEventListener("change", () => predict());
  clear();
}

prepare();
load().then(() => predict(), (error) => fail(new Error(`The model cannot be run in this browser: ${error.message}`)));
