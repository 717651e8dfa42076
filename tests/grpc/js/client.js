// The client of the published JavaScript SDK of Durable Task, driven by lines.
//
// node client.js ADDRESS:PORT
//
// Each line of stdin is a call, {"call": NAME, "with": [ARGUMENT, ...]}; each is answered by a line of stdout, {"value": ...} or
// {"error": {"name", "message"}}. DURABLY_KEY is shown to the host.

import { createInterface } from "node:readline";

import grpc from "@grpc/grpc-js";
import {
  EntityInstanceId,
  NoOpLogger,
  OrchestrationStatus,
  PurgeInstanceCriteria,
  TaskHubGrpcClient,
  terminateOptions,
} from "@microsoft/durabletask-js";

async function credential() {
  const metadata = new grpc.Metadata();
  metadata.set("x-functions-key", process.env.DURABLY_KEY);
  return metadata;
}

const client = new TaskHubGrpcClient({
  hostAddress: process.argv[2],
  logger: new NoOpLogger(),
  metadataGenerator: process.env.DURABLY_KEY && credential,
});
const account = (key) => new EntityInstanceId("Account", key);
const statuses = (names) => names?.map((name) => OrchestrationStatus[name]);

function shown(state) {
  if (state === undefined) return null;
  const { failureDetails, ...rest } = state;
  const failure = failureDetails && { type: failureDetails.errorType, message: failureDetails.message };
  return { ...rest, runtimeStatus: OrchestrationStatus[state.runtimeStatus], failure };
}

function shownEntity(found) {
  if (found === undefined) return null;
  const { id, includesState, backlogQueueSize, lockedBy } = found;
  const state = includesState ? found.state : null; // which throws when it was not asked for
  return { id: id.toString(), includesState, state, backlogQueueSize, lockedBy };
}

async function pages(pageable) {
  const found = [];
  for await (const page of pageable.asPages()) found.push(page.values);
  return found;
}

const calls = {
  start: (name, input, options) => client.scheduleNewOrchestration(name, input ?? undefined, dated(options)),
  get: async (id, payloads) => shown(await client.getOrchestrationState(id, payloads)),
  started: async (id) => shown(await client.waitForOrchestrationStart(id, true, 30)),
  ended: async (id, seconds) => shown(await client.waitForOrchestrationCompletion(id, true, seconds ?? 30)),
  raise_: (id, name, data) => client.raiseOrchestrationEvent(id, name, data),
  terminate: (id, output) => client.terminateOrchestration(id, output),
  terminateAll: (id, output) => client.terminateOrchestration(id, terminateOptions({ output, recursive: true })),
  suspend: (id) => client.suspendOrchestration(id),
  resume: (id) => client.resumeOrchestration(id),
  restart: (id, anew) => client.restartOrchestration(id, anew),
  rewind: (id, reason) => client.rewindInstance(id, reason),
  history: (id) => client.getOrchestrationHistory(id),

  query: async ({ names, ...filter }) =>
    (await pages(client.getAllInstances({ ...filter, statuses: statuses(names) }))).map((page) => page.map(shown)),

  list: ({ names, ...options }) => client.listInstanceIds({ ...options, runtimeStatus: statuses(names) }),

  purge: (id, options) => client.purgeOrchestration(id, options),

  async purgeWhere(names, from) {
    const criteria = new PurgeInstanceCriteria();
    criteria.setRuntimeStatusList(statuses(names));
    criteria.setCreatedTimeFrom(new Date(from));
    return await client.purgeOrchestration(criteria);
  },

  signal: (key, operation, input, options) => client.signalEntity(account(key), operation, input ?? undefined, dated(options)),
  entity: async (key, state) => shownEntity(await client.getEntity(account(key), state)),
  entities: async (query) => (await pages(client.getEntities(query))).map((page) => page.map(shownEntity)),
  clean: () => client.cleanEntityStorage(),
};

/** Options, in which the times are times. */
function dated(options) {
  if (!options) return undefined;
  const found = { ...options };
  for (const name of ["startAt", "signalTime"]) if (found[name]) found[name] = new Date(found[name]);
  return found;
}

for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line);
  let answer;
  try {
    answer = { value: (await calls[asked.call](...asked.with)) ?? null };
  } catch (error) {
    answer = { error: { name: error.name, message: error.message } };
  }
  console.log(JSON.stringify(answer));
}
await client.stop();
