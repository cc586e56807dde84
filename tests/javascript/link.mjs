// The two connections of a device (protocol, section 10): a new MQTT session for each, and a random pause between them.

import { randomBytes } from "node:crypto";
import mqtt from "mqtt";
import { chunkOf } from "./blobs.mjs";
import { pack } from "./wire.mjs";

const KEEPALIVE_S = 30;
const RECONNECT_MAX_S = 30;
const WINDOW = 20; // unacknowledged publishes on a connection
const PACKET_OVERHEAD = 1024;
const LARGEST_PACKET = 2097152; // announced; mqtt.js does not look at the length of what comes all the same
const own = randomBytes(8).toString("hex"); // who knows a client id can take its connection's place

function connect(bundle, part, will) {
  return mqtt.connect({
    protocol: "mqtts",
    host: bundle.host,
    port: bundle.port,
    ca: bundle.ca,
    cert: bundle.certificate,
    key: bundle.key,
    minVersion: "TLSv1.2",
    rejectUnauthorized: true,
    protocolVersion: 5,
    clientId: `fedpi-${bundle.federation}-dev-${bundle.name}-${part}-${own}`,
    clean: true,
    keepalive: KEEPALIVE_S,
    reconnectPeriod: 0, // a connection that is lost is not this client's to restore: `keepConnected` makes a new one
    resubscribe: false,
    properties: { maximumPacketSize: LARGEST_PACKET },
    will,
  });
}

// Calls `attempt` for a connection, and again after each loss: after 0 to min(30, 0.5 * 2^n) seconds.
function keepConnected(attempt) {
  let failures = 0;
  const start = () => {
    const client = attempt(() => (failures = 0));
    client.on("error", (error) => process.stdout.write(`connection: ${error.message}\n`));
    client.once("close", () => {
      client.end(true);
      setTimeout(start, 1000 * Math.random() * Math.min(RECONNECT_MAX_S, 0.5 * 2 ** failures));
      failures += 1;
    });
  };
  start();
}

// Subscribes; false where the connection was lost before the broker answered.
const isGranted = (client, filters) => client.subscribeAsync(filters, { qos: 1 }).then(() => true, () => false);

export function connectControl({ bundle, filters, will, onReady, onMessage, onClosed }) {
  keepConnected((succeeded) => {
    const client = connect(bundle, "control", will());
    client.on("message", onMessage);
    client.once("connect", async () => {
      succeeded();
      if (await isGranted(client, filters)) onReady(client);
    });
    client.once("close", onClosed);
    return client;
  });
}

// The connection for chunks: those of the model that is fetched, and those of the update that is asked for.
export class Bulk {
  constructor(bundle, topics, onChunk, onReady) {
    this.topics = topics;
    this.wish = null; // the blob that is to be heard
    this.granted = null; // the blob whose subscription the broker has granted
    this.queue = [];
    this.inFlight = 0;
    this.client = null;
    keepConnected((succeeded) => {
      const client = connect(bundle, "bulk");
      client.on("message", (_topic, payload) => onChunk(payload));
      client.once("connect", (connack) => {
        succeeded();
        this.client = client;
        this.limits = connack.properties ?? {};
        this.queue = [];
        this.inFlight = 0;
        onReady();
        this.#subscribe();
      });
      client.once("close", () => {
        this.client = this.granted = null;
      });
      return client;
    });
  }

  // The largest chunks that this connection carries.
  chunkBytes() {
    const limit = this.limits?.maximumPacketSize ?? 2 ** 28;
    return Math.max(4096, Math.floor((limit - PACKET_OVERHEAD) / 1024) * 1024);
  }

  hears(blob) {
    return this.granted === blob;
  }

  // Listens to the chunks of a blob, and of no other; null: of none.
  listen(blob) {
    if (this.client && this.granted) this.client.unsubscribe(this.topics.blob(this.granted));
    this.wish = blob;
    this.granted = null;
    this.#subscribe();
  }

  async #subscribe() {
    const { client, wish } = this;
    if (!client || wish === null) return;
    const granted = await isGranted(client, this.topics.blob(wish));
    if (granted && this.client === client && this.wish === wish) this.granted = wish;
  }

  // Publishes chunks of the update; what waits already, or is unacknowledged, is not sent twice.
  serve(blob, indexes) {
    for (const index of indexes)
      if (!this.queue.some((one) => one.blob === blob && one.index === index)) this.queue.push({ blob, index, isSent: false });
    this.#pump();
  }

  #pump() {
    const { client } = this;
    const window = Math.min(WINDOW, this.limits?.receiveMaximum ?? WINDOW);
    for (const one of this.queue) {
      if (!client || this.inFlight >= window) return;
      if (one.isSent) continue;
      one.isSent = true;
      this.inFlight += 1;
      client.publish(this.topics.up, pack("Chunk", chunkOf(one.blob, one.index)), { qos: 1 }, () => {
        if (this.client !== client) return; // a later connection counts anew
        this.inFlight -= 1;
        this.queue.splice(this.queue.indexOf(one), 1);
        this.#pump();
      });
    }
  }
}
