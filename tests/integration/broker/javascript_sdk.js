// Uses the broker by Microsoft's SDK for JavaScript and prints what it saw as JSON.
const { ServiceBusClient, ServiceBusAdministrationClient } = require("@azure/service-bus");

const [, , connectionString, adminConnectionString] = process.argv;
const seen = {};

async function codeOf(action) {
  try {
    await action();
    return "none";
  } catch (error) {
    return error.code;
  }
}

async function receive(receiver, count) {
  const found = [];
  while (found.length < count) {
    const batch = await receiver.receiveMessages(count - found.length, { maxWaitTimeInMs: 10000 });
    if (!batch.length) break;
    found.push(...batch);
  }
  return found;
}

async function queues(client) {
  const sender = client.createSender("orders");
  await sender.sendMessages([{ body: "a" }, { body: { x: 1 }, messageId: "mine", applicationProperties: { n: 1 } }]);
  const batch = await sender.createMessageBatch();
  batch.tryAddMessage({ body: "c" });
  await sender.sendMessages(batch);
  const numbers = await sender.scheduleMessages([{ body: "later" }], new Date(Date.now() + 3600e3));
  await sender.cancelScheduledMessages(numbers);
  const receiver = client.createReceiver("orders");
  const [first, second, third] = await receive(receiver, 3);
  seen.bodies = [first.body, second.body, third.body];
  seen.ids = [first.messageId.length, second.messageId];
  await receiver.renewMessageLock(first);
  await receiver.completeMessage(first);
  await receiver.deadLetterMessage(second, { deadLetterReason: "why", deadLetterErrorDescription: "text", extra: 5 });
  await receiver.abandonMessage(third, { tries: 7 });
  const [again] = await receive(receiver, 1);
  seen.abandoned = [again.applicationProperties, again.deliveryCount];
  await receiver.deferMessage(again, { put: "aside" });
  const [deferred] = await receiver.receiveDeferredMessages([again.sequenceNumber]);
  seen.deferred = deferred.applicationProperties;
  await receiver.completeMessage(deferred);
  const [dead] = await receive(client.createReceiver("orders", { subQueueType: "deadLetter" }), 1);
  seen.dead = [dead.deadLetterReason, dead.applicationProperties.extra];
  seen.missing = await codeOf(() => client.createReceiver("nowhere").receiveMessages(1, { maxWaitTimeInMs: 2000 }));
}

async function streams(client) {
  const sender = client.createSender("orders");
  await sender.sendMessages([
    { body: [1, "a"], bodyType: "value" },
    { body: [[1], ["b"]], bodyType: "sequence" },
    { body: Buffer.from("c"), bodyType: "data" },
  ]);
  const receiver = client.createReceiver("orders");
  const peeked = await receiver.peekMessages(5);
  seen.peeked = peeked.map((each) => [each._rawAmqpMessage.bodyType, each.state]);
  const found = [];
  await new Promise((resolve, reject) => {
    const processMessage = async (message) => {
      found.push(String(message.body));
      if (found.length === 3) resolve();
    };
    receiver.subscribe({ processMessage, processError: async ({ error }) => reject(error) }, { maxConcurrentCalls: 3 });
  });
  await receiver.close();
  seen.streamed = found.sort();
}

async function sessions(client) {
  const sender = client.createSender("talks");
  await sender.sendMessages([{ body: "1", sessionId: "A" }, { body: "2", sessionId: "B" }]);
  const next = await client.acceptNextSession("talks");
  await next.setSessionState({ half: "way" });
  await next.renewSessionLock();
  const [message] = await receive(next, 1);
  await next.completeMessage(message);
  seen.session = [next.sessionId, await next.getSessionState(), message.body];
  seen.taken = await codeOf(() => client.acceptSession("talks", "A"));
}

async function rules(client) {
  const manager = client.createRuleManager("news", "all");
  await manager.createRule("r", { subject: "u", applicationProperties: { n: 1 } });
  await manager.createRule("s", { sqlExpression: "a = 1" }, { sqlExpression: "SET b = 2" });
  const found = [];
  for await (const rule of manager.listRules()) found.push(rule.name);
  await manager.deleteRule("r");
  await manager.deleteRule("s");
  seen.rules = found;
  await client.createSender("news").sendMessages({ body: "to all" });
  const [message] = await receive(client.createReceiver("news", "all"), 1);
  seen.topic = message.body;
}

async function administration() {
  const client = new ServiceBusAdministrationClient(adminConnectionString);
  const queue = await client.createQueue("made", { lockDuration: "PT30S", maxDeliveryCount: 5 });
  queue.maxDeliveryCount = 6;
  const changed = await client.updateQueue(queue);
  seen.queue = [queue.name, queue.lockDuration, changed.maxDeliveryCount, queue.status];
  seen.exists = [await client.queueExists("made"), await client.queueExists("nowhere")];
  seen.count = (await client.getQueueRuntimeProperties("made")).totalMessageCount;
  await client.createTopic("t");
  await client.createSubscription("t", "s");
  const wanted = { correlationId: "c", applicationProperties: { k: "v", n: 5, b: true, d: new Date(5) } };
  await client.createRule("t", "s", "r", wanted, { sqlExpression: "SET a = 1" });
  const rule = await client.getRule("t", "s", "r");
  seen.rule = [rule.filter.applicationProperties, rule.action.sqlExpression];
  const names = [];
  for await (const each of client.listSubscriptions("t")) names.push(each.topicName, each.subscriptionName);
  for await (const each of client.listRules("t", "s")) names.push(each.name);
  seen.names = names;
  seen.namespace = (await client.getNamespaceProperties()).name;
  await client.deleteTopic("t");
  await client.deleteQueue("made");
  seen.gone = await codeOf(() => client.getQueue("made"));
  seen.repeated = await codeOf(() => client.createQueue("orders"));
}

async function main() {
  const client = new ServiceBusClient(connectionString, { retryOptions: { maxRetries: 0 } });
  await queues(client);
  await streams(client);
  await sessions(client);
  await rules(client);
  await client.close();
  await administration();
  console.log(JSON.stringify(seen));
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
