// `node node.js MODEL QUESTION` prints what onnxruntime-node says of the question's rows.
import { readFile } from "node:fs/promises";
import * as ort from "onnxruntime-node";
import { ask } from "./ask.js";

const [model, question] = process.argv.slice(2);
console.log(JSON.stringify(await ask(ort, model, JSON.parse(await readFile(question, "utf8")))));
