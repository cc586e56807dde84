// Makes the worked bytes of docs/protocol.md, whose path is the argument, and compares: node worked.mjs docs/protocol.md

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { encode } from "@msgpack/msgpack";
import { bitmap, chunkOf, digest, makeBlob, wanted } from "./blobs.mjs";
import { Signer, Verifier, pack, unpack, unpackBare } from "./wire.mjs";

const text = readFileSync(process.argv[2], "utf-8");

// The last cells of the first table below a heading, without their backquotes.
function worked(heading) {
  const below = text.split(new RegExp(`^#+ ${heading}\n`, "m"))[1];
  const rows = /(?:^\|.*\n)+/m.exec(below)[0].trim().split("\n").slice(2);
  return rows.map((row) => row.split(" | ").at(-1).replace(/^`|` \|$/g, ""));
}

const hex = (data) => Buffer.from(data).toString("hex");

// ---- a blob -------------------------------------------------------------------------------------

const body = Buffer.alloc(16);
[1, -2, 0.5].forEach((value, place) => body.writeFloatLE(value, 4 * place));
body.writeInt32LE(7, 12);
const spec = [
  { name: "w", shape: [3], dtype: "float32" },
  { name: "n", shape: [1], dtype: "int32" },
];
const blob = makeBlob(body, 4096, spec);
assert.deepEqual(worked("A worked example"), [
  hex(body),
  hex(blob.head),
  blob.ref.id,
  hex(pack("Want", { device: "rpi1", blob: blob.ref.id, chunks: bitmap([0, 1]) })),
  hex(pack("Chunk", chunkOf(blob, 1))),
  hex(bitmap([0, 3, 9])),
]);
assert.deepEqual(wanted(blob.ref, Buffer.from("ff", "hex")), [0, 1]);

// ---- messages -----------------------------------------------------------------------------------

const part = { device: "rpi1", round: 3, generation: "0a" };
const choice = { name: "numpy", options: { tensors: 2 } };
const plan = Buffer.from(
  encode({ round: 3, generation: "0a", base: blob.ref, model: choice, training: { epochs: 1 } }),
);
const update = { plan: digest(plan), update: blob.ref, num_examples: 5, metrics: { loss: 0.25 } };
assert.deepEqual(worked("4.7 Worked messages"), [
  hex(pack("Hello", { device: "rpi1", nonce: "1f" })),
  hex(plan),
  hex(pack("Invite", { ...part, plan })),
  hex(pack("Offer", { ...part, ...update })),
]);
assert.equal(unpackBare("RoundPlan", plan).deadline_s, 900);
assert.throws(() => unpack(pack("Receipt", { ...part, update: "0".repeat(64), more: 1 }), "Receipt"));

// ---- keys and signatures ------------------------------------------------------------------------

const [peers, der, facts] = worked("Worked identities");
const pem = `-----BEGIN PRIVATE KEY-----\n${Buffer.from(der, "hex").toString("base64")}\n-----END PRIVATE KEY-----\n`;
const certified = JSON.stringify(["lab", "rpi1", "192.168.1.5", 8883, `${peers}\n`]);
assert.equal(facts, `0420${createHash("sha256").update(certified).digest("hex")}`);

const [publicKey, checkIn, online, offline] = worked("Worked signatures");
assert.equal(hex(Buffer.from(peers.split(" ")[1], "base64")), publicKey);
const [say, status] = ["fedpi-wire/2/lab/dev/rpi1/say", "fedpi/2/lab/coord/status"];
const signer = new Signer(pem, 5);
assert.equal(hex(signer.envelope(say, pack("CheckIn", { ...part, generation: "aa" }))), checkIn);
const here = { federation: "lab", epoch: "0a", state: "online" };
assert.equal(signer.document(status, here).toString(), online);
assert.equal(signer.document(status, { ...here, state: "offline" }, true).toString(), offline);

const verifier = new Verifier(peers, {});
const read = (document) => verifier.read("CoordinatorStatus", status, Buffer.from(document));
assert.equal(read(online).state, "online");
assert.equal(read(online).state, "online"); // retained: it may come again
assert.equal(read(offline).state, "offline");
verifier.open(say, Buffer.from(checkIn, "hex"));
assert.throws(() => verifier.open(say, Buffer.from(checkIn, "hex")), /said before/);
assert.throws(() => read(online.replace("0a", "0b")), /false signature/);
