// Calls a server with @grpc/grpc-js, which shares no code with gRPC's C core: Node's own HTTP/2 is under it.
//
//   NODE_PATH=… node grpc_js_client.js ADDRESS FOLDER
//
// FOLDER has serialized requests: predict, unknown, slow, large. Prints a line of JSON for each case, the answer in
// base64 or its code and details. After "restart?" it waits for a line, then calls on the same channel again.
"use strict";

const fs = require("fs");
const path = require("path");
const readline = require("readline");
const grpc = require("@grpc/grpc-js");

const PREDICT = "/tensorflow.serving.PredictionService/Predict";
const [address, folder] = process.argv.slice(2);
const unlimited = { "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1 };
const same = (bytes) => bytes;

function request(name) {
  return fs.readFileSync(path.join(folder, name));
}

function call(client, message, metadata, options, afterwards) {
  return new Promise((resolve) => {
    const made = client.makeUnaryRequest(PREDICT, same, same, message, metadata, options, (error, answer) => {
      resolve(error ? { code: error.code, details: error.details } : { code: 0, answer: answer.toString("base64") });
    });
    if (afterwards) afterwards(made);
  });
}

async function main() {
  const client = new grpc.Client(address, grpc.credentials.createInsecure(), unlimited);
  const empty = () => new grpc.Metadata();
  const inTime = () => ({ deadline: Date.now() + 60000 });
  const results = {};
  results.predict = await call(client, request("predict"), empty(), inTime());
  results.error = await call(client, request("unknown"), empty(), inTime());
  results.deadline = await call(client, request("slow"), empty(), { deadline: Date.now() + 300 });
  results.cancel = await call(client, request("slow"), empty(), inTime(), (made) =>
    setTimeout(() => made.cancel(), 200),
  );
  results.large = await call(client, request("large"), empty(), inTime());
  const metadata = empty();
  metadata.set("x-key", "value");
  metadata.set("x-key-bin", Buffer.from([0, 1, 2, 255]));
  results.metadata = await call(client, request("predict"), metadata, inTime());
  const oversized = empty();
  oversized.set("x-long", "y".repeat(30000));
  results.oversized = await call(client, request("predict"), oversized, inTime());
  const packing = new grpc.Client(address, grpc.credentials.createInsecure(), {
    ...unlimited,
    "grpc.default_compression_algorithm": 2,
  });
  results.gzip = await call(packing, request("large"), empty(), inTime());
  packing.close();
  const streams = Array.from({ length: 200 }, () => call(client, request("predict"), empty(), inTime()));
  results.parallel = await Promise.all(streams);

  console.log("restart?");
  const lines = readline.createInterface({ input: process.stdin });
  await new Promise((resolve) => lines.once("line", resolve));
  lines.close();
  const metadataThatWaits = new grpc.Metadata({ waitForReady: true });
  results.reconnect = await call(client, request("predict"), metadataThatWaits, inTime());
  client.close();
  console.log(JSON.stringify(results));
}

main();
