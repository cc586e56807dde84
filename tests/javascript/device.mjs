// A fedpi device in JavaScript, written from docs/protocol.md without a look at fedpi's code.
//
//   node device.mjs --bundle rpi2.fedpi --state FOLDER [--add 0.5] [--examples 5] [--labels no,yes]
//
// It takes part in the rounds of the model `numpy`: its "training" adds a constant to every value of the global model. It
// serves no releases and keeps no update over a restart: it checks in again, and makes the same one.

import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { connectControl, Bulk } from "./link.mjs";
import { Fetch, bitmap, digest, makeBlob, wanted } from "./blobs.mjs";
import { Signer, Verifier, pack, unpack, unpackBare } from "./wire.mjs";

const REPEAT_S = 3;
const REPEAT_MAX_S = 60;
const WANTED_S = 10; // pause after a Want
const HEARTBEAT_S = 30;
const seconds = () => performance.now() / 1000;
const token = () => randomBytes(8).toString("hex");
const log = (line) => process.stdout.write(`${line}\n`);

const { values: options } = parseArgs({
  options: {
    bundle: { type: "string" },
    state: { type: "string" },
    add: { type: "string", default: "0.5" },
    examples: { type: "string", default: "5" },
    labels: { type: "string", default: "no,yes" },
  },
});
const bundle = JSON.parse(readFileSync(options.bundle, "utf-8"));
if (bundle.format !== 1) throw new Error(`${options.bundle}: a bundle of format ${bundle.format}`);
const me = bundle.name;
const readable = `fedpi/2/${bundle.federation}`;
const wire = `fedpi-wire/2/${bundle.federation}`;
const topics = {
  coordinator: `${readable}/coord/status`,
  round: `${readable}/coord/round`,
  status: `${readable}/dev/${me}/status`,
  say: `${wire}/dev/${me}/say`,
  cmd: `${wire}/dev/${me}/cmd`,
  up: `${wire}/dev/${me}/up`,
  blob: (id) => `${wire}/blob/${id.slice(0, 16)}`,
};

// ---- what lasts over restarts: the epoch of signatures, and what was heard of retained documents --------------------

mkdirSync(options.state, { recursive: true });
const memoryPath = join(options.state, "memory.json");
const memory = existsSync(memoryPath) ? JSON.parse(readFileSync(memoryPath, "utf-8")) : { epoch: 0, heard: {} };
memory.epoch = Math.max(Math.floor(Date.now() / 1000), memory.epoch + 1);

function remember() {
  writeFileSync(`${memoryPath}.new`, JSON.stringify(memory));
  renameSync(`${memoryPath}.new`, memoryPath);
}
remember();
const signer = new Signer(bundle.signing_key, memory.epoch);
const verifier = new Verifier(bundle.peers, memory.heard);

// ---- state --------------------------------------------------------------------------------------------------------

let control = null; // the control connection, once its subscriptions are granted
let nonce = null; // of that connection
const nonces = new Set(); // of all connections of this process
let takeovers = { by: null, count: 0 };
let epoch = "0"; // the coordinator's, as last heard
let refused = 0; // messages dropped
let heartbeat = 0;
let task = null; // this device's part in a round: { round, generation, stage, plan, update, offer, hasResult }
let repeat = null; // what is said again: { type, fields, at, wait }
let fetch = null; // the model on its way
let model = null; // the global model that is here: { ref, fields, body }
const bulk = new Bulk(bundle, topics, (payload) => guarded(() => takeChunk(unpack(payload, "Chunk"))), () => fetch?.forget());

function guarded(act) {
  try {
    act();
  } catch (error) {
    refused += 1;
    log(`refused: ${error.message}`);
  }
}

// ---- speaking -----------------------------------------------------------------------------------------------------

function say(type, fields) {
  control?.publish(topics.say, signer.envelope(topics.say, pack(type, { device: me, ...fields })), { qos: 1 });
}

// Says a message until `hush`, ever more slowly. Before the Hello of a connection nothing is said: `greet` makes up for it.
function keepSaying(type, fields) {
  repeat = { type, fields, wait: REPEAT_S, at: seconds() + REPEAT_S };
  say(type, fields);
}

const hush = () => (repeat = null);
const part = () => ({ round: task.round, generation: task.generation });

function status(state, isWill = false) {
  const fields = { device: me, nonce, state, ...(isWill ? {} : { doing: task?.stage ?? "waiting", refused }) };
  if (fields.refused === 0) delete fields.refused; // a default is not sent
  return signer.document(topics.status, fields, isWill);
}

function publishStatus() {
  heartbeat = seconds() + HEARTBEAT_S;
  control?.publish(topics.status, status("online"), { qos: 1, retain: true });
}

// The Hello of a new connection, or to a coordinator that is new; then what is open is said at once.
function greet() {
  say("Hello", epoch === "0" ? { nonce } : { nonce, epoch });
  if (task?.stage === "delivered" && !task.hasResult) keepSaying("CheckIn", part());
  else if (repeat) keepSaying(repeat.type, repeat.fields);
}

// ---- the part in a round (section 7.6) -----------------------------------------------------------------------------

function enter(stage) {
  task.stage = stage;
  log(`round ${task.round}: ${stage}`);
  publishStatus();
}

function checkIn(next) {
  task = { ...next, stage: "joining", plan: null, update: null, offer: null, hasResult: false };
  enter("joining");
  keepSaying("CheckIn", part());
}

function onRound(next) {
  if (next.model && next.model.id !== model?.ref.id && next.model.id !== fetch?.ref.id) startFetch(next.model);
  const isOpen = ["selecting", "reporting", "aggregating"].includes(next.phase);
  const isMine = task && task.round === next.round && task.generation === next.generation;
  if (isMine && isOpen) {
    if (next.phase !== "selecting" || task.stage === "joining") return;
    if (["refused", "declined"].includes(task.stage)) checkIn(part());
    else say("CheckIn", part()); // the coordinator may have lost its cohort
    return;
  }
  if (task) {
    hush();
    if (task.offer && task.stage !== "refused" && !task.hasResult) say("CheckIn", part()); // did it count?
    task = null;
  }
  if (["selecting", "reporting"].includes(next.phase)) checkIn({ round: next.round, generation: next.generation });
}

function onInvite(message) {
  if (task.stage === "delivered") return offer();
  if (["fetching", "training"].includes(task.stage)) return say("Accept", part());
  if (task.stage !== "joining") return;
  const plan = unpackBare("RoundPlan", message.plan);
  if (plan.round !== task.round || plan.generation !== task.generation) throw new Error("a plan of another round");
  hush();
  if (plan.labels.join() !== options.labels) {
    enter("declined");
    return keepSaying("Decline", { ...part(), reason: `the labels here are ${options.labels}` });
  }
  task.plan = plan;
  task.planDigest = digest(message.plan);
  say("Accept", part());
  enter("fetching");
  if (plan.model.name !== "numpy" || plan.training.personal.length) return fail("this device adds to every tensor of numpy");
  if (model?.ref.id === plan.base.id) return train();
  if (fetch?.ref.id !== plan.base.id) startFetch(plan.base);
}

function fail(reason) {
  enter("failed");
  keepSaying("Failed", { ...part(), reason });
}

// update = local - base in the base's dtype, tensor by tensor; that of whole numbers is zero.
function train() {
  enter("training");
  const body = Buffer.alloc(model.body.length);
  const add = Math.fround(Number(options.add));
  let at = 0;
  for (const { shape, dtype } of model.fields.spec) {
    const count = shape.reduce((a, b) => a * b, 1);
    if (dtype !== "float32") return fail(`this device trains no tensors of ${dtype}`);
    for (const end = at + 4 * count; at < end; at += 4) {
      const before = model.body.readFloatLE(at);
      body.writeFloatLE(Math.fround(Math.fround(before + add) - before), at);
    }
  }
  const chunkBytes = Math.min(model.ref.chunk_bytes, bulk.chunkBytes());
  task.update = makeBlob(body, chunkBytes, model.fields.spec);
  task.offer = {
    ...part(), plan: task.planDigest, update: task.update.ref, num_examples: Number(options.examples),
    metrics: { loss: 0.25 },
  };
  offer();
}

function offer() {
  enter("offering");
  keepSaying("Offer", task.offer);
}

function onWant(message) {
  if (!task?.update || message.blob !== task.update.ref.id) throw new Error("a Want for a blob that is not on offer");
  if (repeat?.type === "Offer") repeat.at = Math.max(repeat.at, seconds() + WANTED_S);
  bulk.serve(task.update, wanted(task.update.ref, message.chunks));
}

function onTakeover({ nonce: earlier, by }) {
  if (earlier !== nonce) return;
  if (!nonces.has(by)) takeovers = { by, count: takeovers.by === by ? takeovers.count + 1 : 1 };
  if (takeovers.count >= 2) {
    log("another process speaks under this name");
    process.exit(78);
  }
  greet();
}

function onCommand(message) {
  if (message.device !== me) throw new Error("a message for another device");
  if (message.type === "Want") return onWant(message);
  if (message.type === "Takeover") return onTakeover(message);
  if (message.type === "Result") log(`round ${message.round}: ${message.counted ? "counted" : `void, ${message.reason}`}`);
  if (!task || message.round !== task.round || message.generation !== task.generation) return;
  if (message.type === "Invite") onInvite(message);
  if (message.type === "Result") {
    task.hasResult = true;
    if (task.stage === "delivered") hush();
  }
  if (message.type === "Receipt" && ["joining", "offering", "delivered"].includes(task.stage)) {
    hush();
    enter("delivered");
  }
  if (message.type === "Refusal") {
    hush();
    task.update = task.offer = null;
    log(`round ${task.round}: refused, ${message.reason}`);
    enter("refused");
  }
}

function onCoordinator(document) {
  if (document.state !== "online" || document.epoch === epoch) return;
  epoch = document.epoch;
  greet();
}

// ---- fetching a model (sections 6.1 and 6.2) ------------------------------------------------------------------------

function startFetch(ref) {
  fetch = new Fetch(ref);
  bulk.listen(ref.id);
}

function takeChunk(chunk) {
  if (chunk.blob !== fetch?.ref.id) return;
  try {
    fetch.take(chunk, seconds());
  } catch (error) {
    if (fetch.isOver && task?.stage === "fetching" && task.plan.base.id === chunk.blob) fail(`the model: ${error.message}`);
    throw error;
  }
  if (!fetch.isComplete) return ask();
  model = { ref: fetch.ref, fields: fetch.fields, body: fetch.body };
  fetch = null;
  bulk.listen(null);
  log(`model ${model.ref.id.slice(0, 16)} is here`);
  if (task?.stage === "fetching" && task.plan.base.id === model.ref.id) train();
}

function ask() {
  if (!fetch || !control || !bulk.hears(fetch.ref.id)) return;
  const next = fetch.ask(seconds());
  if (next.length) say("Want", { blob: fetch.ref.id, chunks: bitmap(next) });
}

// ---- the control connection -----------------------------------------------------------------------------------------

function onMessage(topic, payload) {
  if (topic === topics.coordinator) onCoordinator(verifier.read("CoordinatorStatus", topic, payload));
  else if (topic === topics.round) onRound(verifier.read("RoundStatus", topic, payload));
  else if (topic === topics.cmd) {
    const kinds = ["Invite", "Want", "Receipt", "Refusal", "Result", "Takeover"];
    return onCommand(unpack(verifier.open(topic, payload), ...kinds));
  } else throw new Error(`the topic ${topic} is none of this device's`);
  remember();
}

connectControl({
  bundle,
  filters: [topics.coordinator, topics.round, topics.cmd],
  // The will holds the nonce of its connection, which so is drawn before it.
  will: () => {
    nonce = token();
    nonces.add(nonce);
    return { topic: topics.status, payload: status("offline", true), qos: 1, retain: true };
  },
  onReady: (client) => {
    control = client;
    log("connected");
    fetch?.forget();
    greet();
    publishStatus();
  },
  onMessage: (topic, payload) => guarded(() => onMessage(topic, payload)),
  onClosed: () => (control = null),
});

setInterval(() => {
  const now = seconds();
  if (repeat && now >= repeat.at) {
    repeat.wait = Math.min(2 * repeat.wait, REPEAT_MAX_S);
    repeat.at = now + repeat.wait;
    say(repeat.type, repeat.fields);
  }
  if (now >= heartbeat) publishStatus();
  guarded(ask);
}, 100);

async function leave() {
  if (control) {
    say("Bye", { nonce });
    await control.publishAsync(topics.status, status("offline"), { qos: 1, retain: true });
    await control.endAsync();
  }
  process.exit(0);
}
process.on("SIGTERM", leave);
process.on("SIGINT", leave);
