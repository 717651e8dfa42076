// A worker with the published JavaScript SDK of Durable Task.
//
// node worker.js ADDRESS:PORT EFFECTS [PREFIX [VERSION]]
//
// It notes each activity that it has run as a line of EFFECTS. With a PREFIX its functions are called so, and it takes no
// others: workers of other languages may be there. With a VERSION it takes no others of these either. DURABLY_KEY is shown to
// the host.

import { appendFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

import grpc from "@grpc/grpc-js";
import {
  EntityInstanceId,
  NoOpLogger,
  RetryPolicy,
  TaskEntity,
  TaskHubGrpcWorker,
  VersionFailureStrategy,
  VersionMatchStrategy,
  whenAll,
  whenAny,
} from "@microsoft/durabletask-js";

const [hostAddress, effects, prefix = "", version] = process.argv.slice(2);
const own = (name) => prefix + name;
let tries = 0;
const note = (text) => appendFileSync(effects, `${text}\n`);

// --- activities ------------------------------------------------------------------------------------------------------

const activities = {
  increase(ctx, number) {
    note(`increase ${ctx.orchestrationId} ${number}`);
    return number + 1;
  },

  async fail(ctx, text) {
    note(`fail ${ctx.orchestrationId}`);
    throw new RangeError(text);
  },

  // Fails so many times in this process.
  flaky(_, fails) {
    tries += 1;
    if (tries <= fails) throw new Error(`try ${tries}`);
    return `try ${tries}`;
  },

  echo: async (_, data) => data,

  nothing: async () => {},

  async slow(ctx, seconds) {
    note(`begun ${ctx.orchestrationId}`);
    await sleep(seconds * 1000);
    note(`slow ${ctx.orchestrationId}`);
    return "done";
  },
};

// --- orchestrators ---------------------------------------------------------------------------------------------------

const orchestrators = {
  async *chain(ctx, number) {
    for (let step = 0; step < 5; step += 1) number = yield ctx.callActivity(own("increase"), number);
    return number;
  },

  async *fan_out(ctx, width) {
    const numbers = Array.from({ length: width }, (_, number) => number);
    const results = yield whenAll(numbers.map((number) => ctx.callActivity(own("increase"), number)));
    return results.reduce((sum, number) => sum + number, 0);
  },

  async *first(ctx) {
    const late = ctx.createTimer(3600);
    const soon = ctx.createTimer(0.02);
    const winner = yield whenAny([late, soon]);
    if (winner === soon) late.cancel();
    return winner === soon ? "soon" : "late";
  },

  async *two_timers(ctx) {
    const began = ctx.currentUtcDateTime.getTime();
    yield ctx.createTimer(0.05);
    yield ctx.createTimer(new Date(began + 100));
    return ctx.currentUtcDateTime.getTime() - began;
  },

  async *approval(ctx, seconds) {
    const approved = ctx.waitForExternalEvent("approved");
    const timeout = ctx.createTimer(seconds);
    if ((yield whenAny([approved, timeout])) === timeout) return "late";
    timeout.cancel();
    return approved.getResult();
  },

  async *wait(ctx, names) {
    const found = [];
    for (const name of names) {
      ctx.setCustomStatus({ waits: name });
      found.push(yield ctx.waitForExternalEvent(name));
    }
    return found;
  },

  async *parent(ctx, number) {
    const one = yield ctx.callSubOrchestrator(own("chain"), number);
    return yield ctx.callSubOrchestrator(own("chain"), one, { instanceId: `${ctx.instanceId}-child` });
  },

  async *waiting_parent(ctx) {
    return yield ctx.callSubOrchestrator(own("wait"), ["never"], { instanceId: `${ctx.instanceId}-child` });
  },

  async *failing(ctx, text) {
    yield ctx.callActivity(own("fail"), text);
  },

  async *failing_parent(ctx, text) {
    yield ctx.callSubOrchestrator(own("failing"), text);
  },

  async *caught(ctx, text) {
    try {
      yield ctx.callSubOrchestrator(own("failing"), text);
    } catch (error) {
      return [error.name, error.details.errorType, error.details.message];
    }
  },

  async *retrying(ctx, tries) {
    const retry = new RetryPolicy({ maxNumberOfAttempts: tries, firstRetryIntervalInMilliseconds: 20 });
    try {
      yield ctx.callActivity(own("fail"), "again", { retry });
    } catch (error) {
      return error.message;
    }
  },

  async *retried_child(ctx, tries) {
    const retry = new RetryPolicy({ maxNumberOfAttempts: tries, firstRetryIntervalInMilliseconds: 20 });
    try {
      yield ctx.callSubOrchestrator(own("failing"), "again", { retry });
    } catch (error) {
      return error.message;
    }
  },

  async *handled(ctx) {
    const retry = async (failure) => failure.lastAttemptNumber < 3;
    try {
      yield ctx.callActivity(own("fail"), "again", { retry });
    } catch (error) {
      return error.message;
    }
  },

  async *counting(ctx, rounds) {
    const id = ctx.newGuid();
    yield ctx.callSubOrchestrator(own("quick"), rounds);
    if (rounds > 1) {
      ctx.continueAsNew(rounds - 1, true);
      return;
    }
    const event = yield ctx.waitForExternalEvent("last");
    return [event, id.length];
  },

  async *quick(_, input) {
    return input;
  },

  async *banking(ctx, key) {
    const one = new EntityInstanceId(own("Account"), key);
    const other = new EntityInstanceId(own("Account"), `${key}2`);
    ctx.entities.signalEntity(one, "deposit", 1);
    const lock = yield ctx.entities.lockEntities(one, other);
    const before = yield ctx.entities.callEntity(one, "deposit", 10);
    const after = yield ctx.entities.callEntity(other, "deposit", 20);
    lock.release();
    try {
      yield ctx.entities.callEntity(one, "refuse");
    } catch (error) {
      return [before, after, error.message];
    }
  },

  // Sends to another instance, which waits.
  async *sender(ctx, target) {
    ctx.sendEvent(target, "go", { from: ctx.instanceId });
  },

  // Calls what the host itself has.
  async *mixed(ctx, text) {
    const shouted = yield ctx.callActivity("upper", text);
    return yield ctx.callSubOrchestrator("native_child", shouted);
  },

  // Calls what a worker of another language has; its child calls this one again, one less each time.
  async *there_and_back(ctx, rounds) {
    if (rounds === 0) return [];
    const number = yield ctx.callActivity("increase", rounds);
    const entity = new EntityInstanceId("Account", ctx.instanceId);
    const sum = yield ctx.entities.callEntity(entity, "deposit", rounds);
    const rest = yield ctx.callSubOrchestrator("there_and_back", rounds - 1);
    let failure = "";
    try {
      yield ctx.callActivity("fail", "no paper");
    } catch (error) {
      failure = `${error.details.errorType}: ${error.details.message}`;
    }
    return [["js", number, sum, failure], ...rest];
  },

  async *rewindable(ctx, fails) {
    const before = yield ctx.callActivity(own("increase"), 1);
    const child = yield ctx.callSubOrchestrator(own("flaky_child"), fails);
    const after = yield ctx.callActivity(own("increase"), before);
    return [child, after];
  },

  async *flaky_child(ctx, fails) {
    yield ctx.callActivity(own("increase"), 10);
    return yield ctx.callActivity(own("flaky"), fails);
  },

  async *three_steps(ctx, number) {
    const more = yield ctx.callActivity(own("increase"), number);
    yield ctx.createTimer(0.01);
    return yield ctx.callSubOrchestrator(own("chain"), more);
  },

  async *slowly(ctx, seconds) {
    return yield ctx.callActivity(own("slow"), seconds);
  },

  async *long_input(ctx, data) {
    return (yield ctx.callActivity(own("echo"), data)).length;
  },

  async *about(ctx, input) {
    const result = yield ctx.callActivity(own("nothing"));
    return { version: ctx.version, parent: ctx.parent ?? null, input: input ?? null, result: result ?? null };
  },

  async *about_child(ctx) {
    return yield ctx.callSubOrchestrator(own("about"), { a: 1 }, { version: "2.0" });
  },
};

// --- entities --------------------------------------------------------------------------------------------------------

class Account extends TaskEntity {
  initializeState() {
    return { sum: 0 };
  }

  deposit(amount) {
    this.state.sum += amount;
    return this.state.sum;
  }

  refuse() {
    this.state.sum = -1;
    throw new Error("not you");
  }

  report(target) {
    this.context.signalEntity(new EntityInstanceId(own("Account"), target), "deposit", this.state.sum);
    this.context.scheduleNewOrchestration(own("quick"), this.state.sum, { instanceId: `report-${target}` });
  }
}

async function credential() {
  const metadata = new grpc.Metadata();
  metadata.set("x-functions-key", process.env.DURABLY_KEY);
  return metadata;
}

const worker = new TaskHubGrpcWorker({
  hostAddress,
  logger: new NoOpLogger(),
  metadataGenerator: process.env.DURABLY_KEY && credential,
  workItemFilters: prefix || version ? "auto" : undefined,
  versioning: version && {
    version,
    matchStrategy: VersionMatchStrategy.Strict,
    failureStrategy: VersionFailureStrategy.Reject,
  },
});
for (const [name, activity] of Object.entries(activities)) worker.addNamedActivity(own(name), activity);
for (const [name, orchestrator] of Object.entries(orchestrators)) worker.addNamedOrchestrator(own(name), orchestrator);
worker.addNamedEntity(own("Account"), () => new Account());
process.on("SIGTERM", () => worker.stop());
await worker.start();
console.log("ready");
