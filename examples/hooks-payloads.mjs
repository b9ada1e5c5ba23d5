// What Stripe, Slack and others send, in their forms. GitHub's come from a package.
// The words in them are awkward on purpose: quotes, signs of other scripts, escapes.
const now = () => Math.floor(Date.now() / 1000);
let serial = 0;
const id = (prefix) => `${prefix}_${(Date.now() * 1000 + ++serial).toString(36)}`;

export function stripe() {
  const customer = id("cus");
  const event = (type, object, previous_attributes) => ({
    id: id("evt"), object: "event", api_version: "2025-09-30.clover", created: now(), livemode: false, pending_webhooks: 1,
    request: { id: id("req"), idempotency_key: null }, type,
    data: previous_attributes ? { object, previous_attributes } : { object },
  });
  const intent = (status) => ({
    id: "pi_1", object: "payment_intent", amount: 2000, amount_received: status === "succeeded" ? 2000 : 0, currency: "eur", customer, status,
    description: "Crème brûlée “à la carte” – 2 × 10 €", metadata: { order: "A-1017", note: "line one\nline two\ttabbed \\ done" },
  });
  return [
    event("payment_intent.created", intent("requires_payment_method")),
    event("payment_intent.succeeded", intent("succeeded")),
    event("charge.succeeded", { id: "ch_1", object: "charge", amount: 2000, currency: "eur", paid: true, billing_details: { name: "Zoë Ångström", address: null } }),
    event("invoice.paid", { id: "in_1", object: "invoice", customer, total: 4900, lines: { object: "list", data: [{ id: "il_1", amount: 4900 }], has_more: false } }),
    event("customer.subscription.updated", { id: "sub_1", object: "subscription", status: "active", customer, cancel_at_period_end: true }, { cancel_at_period_end: false }),
    event("checkout.session.completed", { id: "cs_test_1", object: "checkout.session", mode: "payment", payment_status: "paid", client_reference_id: "日本語/1" }),
    event("charge.dispute.created", { id: "dp_1", object: "dispute", reason: "fraudulent", evidence_details: { due_by: now() + 86_400, has_evidence: false } }),
    { id: id("evt"), object: "v2.core.event", type: "v2.core.event_destination.ping", created: new Date().toISOString(), livemode: false, context: null, related_object: null },
  ];
}

const team = { token: "not-looked-at", team_id: "T0001", api_app_id: "A0001" };

export const slackChallenge = () => ({ token: team.token, challenge: id("challenge"), type: "url_verification" });

export function slackEvents() {
  const callback = (event) => ({ ...team, event, type: "event_callback", event_id: id("Ev"), event_time: now(), authed_users: ["U0001"] });
  return [
    callback({ type: "app_mention", user: "U0001", text: "<@U0002> déployer *main* & vite 🚀 </script>", ts: "1515449522.000016", channel: "C0001" }),
    callback({ type: "message", channel_type: "im", user: "U0001", text: "שלום \u2028 мир", ts: "1515449523.000017", channel: "D0001" }),
    callback({ type: "reaction_added", user: "U0001", reaction: "thumbsup", item: { type: "message", channel: "C0001", ts: "1515449522.000016" } }),
  ];
}

export const slackForms = () => [
  {
    fields: {
      token: team.token, team_id: team.team_id, team_domain: "example", channel_id: "C0001", channel_name: "general", user_id: "U0001", user_name: "zoë",
      command: "/deploy", text: "main --to=prod & \"now\" 100% +1", response_url: "https://hooks.slack.com/commands/1/2", trigger_id: id("trigger"),
    },
  },
  {
    inner: {
      type: "block_actions", team: { id: team.team_id, domain: "example" }, user: { id: "U0001", username: "zoe" }, api_app_id: team.api_app_id,
      trigger_id: id("trigger"), container: { type: "message", message_ts: "1548261231.000200" },
      actions: [{ action_id: "approve", block_id: "b1", type: "button", value: "yes&no=maybe", text: { type: "plain_text", text: "Approve ✓", emoji: true }, action_ts: "1548426417.840180" }],
    },
  },
  { inner: { type: "view_submission", team: { id: team.team_id }, user: { id: "U0001" }, view: { id: id("V"), type: "modal", state: { values: { b: { a: { type: "plain_text_input", value: "é\n\"q\"" } } } } } } },
];

export const standard = () => [
  { type: "user.created", timestamp: new Date().toISOString(), data: { id: id("usr"), name: "Ada “the Countess” Lovelace", plan: null } },
  { type: "invoice.payment_failed", timestamp: new Date().toISOString(), data: { id: id("inv"), amount: 12.5, tries: 3, retry: false } },
  { type: "contact.updated", timestamp: new Date().toISOString(), data: { tags: ["a", "ü", "\u0000 is allowed in JSON"], nested: { a: [[], {}, [{}]] } } },
];

export const shop = () => [
  { topic: "orders.paid", order: { id: id("o"), total: "49.00", lines: [{ sku: "T-1", n: 2 }] } },
  { topic: "orders.refunded", order: { id: id("o"), total: "-49.00", reason: "it's “broken”" } },
];

// largePush is a push of GitHub's that is larger than an event may be.
export const largePush = () => ({
  ref: "refs/heads/main", before: "0".repeat(40), after: "f".repeat(40), created: false, deleted: false, forced: false, base_ref: null,
  repository: { id: 186853002, name: "Hello-World", full_name: "Codertocat/Hello-World", private: false },
  commits: Array.from({ length: 1000 }, (_, n) => ({
    id: n.toString(16).padStart(40, "0"), distinct: true, timestamp: "2025-07-09T10:30:00+02:00", author: { name: "Zoë", email: "zoe@example.com" },
    message: `Change ${n}: naïve “quotes”, tabs\t and\nlines`, added: [`src/${n}.go`], removed: [], modified: ["README.md", "go.mod", "go.sum"],
  })),
});
