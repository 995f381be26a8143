// Entry point of the page: the header, and the screen named by the address.
import { link } from "./address.js";
import { fetchOutages, keyRequired, openSession } from "./api.js";
import { Activity } from "./activity.js";
import { Dataset } from "./dataset.js";
import { Datasets } from "./datasets.js";
import { Job } from "./job.js";
import { Jobs } from "./jobs.js";
import { html, render, useEffect, useState } from "./lib.js";
import { sentence } from "./format.js";
import { connection, start } from "./live.js";
import { Loras } from "./loras.js";
import { useResource } from "./resource.js";
import { Dialog, Field, route, runWithToast, Toasts } from "./components.js";

/** Name in the address, title, component of the list, component of one item. */
const SCREENS = [
  ["datasets", "Data sets", Datasets, Dataset],
  ["jobs", "Jobs", Jobs, Job],
  ["loras", "LoRAs", Loras, Loras],
  ["activity", "Activity", Activity, Activity],
];

const OUTAGE_POLL_MS = 2000;
const STORAGE_POLL_MS = 10_000;

/** Label and tooltip of each connection state but `replaying`, which counts. */
const CONNECTION_LABELS = {
  connecting: ["connecting", "Connecting to the server"],
  live: ["live", "Connected; this page updates by itself"],
  reconnecting: ["reconnecting", "Connection lost; retrying automatically"],
  stale: ["stale", "No updates from the catalog for a while; this page may be out of date"],
};

const ConnectionStatus = () => {
  const { state, replayed } = connection.value;
  const [label, tooltip] = CONNECTION_LABELS[state] ?? [`catching up (${replayed})`, "Loading events missed while disconnected"];
  return html`<span class=${`pill ${state}`} role="status" title=${tooltip}>${label}</span>`;
};

const Header = ({ screen }) => html`
  <header class="top">
    <a class="brand" href="#/datasets"><img src="/web/icon.svg" alt="" width="24" height="24" />Loratory</a>
    <nav aria-label="Screens">
      ${SCREENS.map(
        ([name, title]) => html`<a href=${link(name)} aria-current=${name === screen ? "page" : null}>${title}</a>`,
      )}
      <a href="/docs">API docs</a>
    </nav>
    <${ConnectionStatus} />
  </header>
`;

/** A message of the server with its cures, which are commands in backquotes or a pointer to the documentation. */
const Problem = ({ text, advice }) => {
  const [what, ...cures] = text.split("; cure: ");
  return html`
    <div class="problem" role="alert">
      <p><strong>${sentence(what)}.</strong>${advice.first}</p>
      ${cures.map((cure) => html`<p key=${cure}>${cure.startsWith("`") ? advice[purposeOf(cure)] : ""}<${Cure} text=${cure} /></p>`)}
    </div>
  `;
};

const purposeOf = (command) => (command.includes(" accept-loss ") ? "giveUp" : "restore");

const Cure = ({ text }) =>
  sentence(text)
    .split("`")
    .map((part, index) => (index % 2 ? html`<code>${part}</code>` : part));

const DAMAGE_ADVICE = { first: "", restore: "Loratory has stopped. To repair it: " };
const STORAGE_ADVICE = {
  first: " Everything else works.",
  restore: "To bring this back, stop Loratory and run: ",
  giveUp: "No backup that Loratory knows has this. To go on without, stop Loratory and run: ",
};

/** While the catalog is silent: what is waited for, as /health/ready says it; or that the log is damaged. */
const OutageNotice = () => {
  const { state, reason } = connection.value;
  const isStale = state === "stale" && !reason;
  const [reasons, setReasons] = useState([]);
  useEffect(() => {
    if (!isStale) return setReasons([]);
    const refresh = () => fetchOutages().then(setReasons, () => setReasons([])); // no gateway: the pill says that
    refresh();
    const timer = setInterval(refresh, OUTAGE_POLL_MS);
    return () => clearInterval(timer);
  }, [isStale]);
  if (reason) return html`<${Problem} text=${reason} advice=${DAMAGE_ADVICE} />`;
  return reasons.length > 0 && html`<p class="outage" role="alert">${reasons.join(" · ")}</p>`;
};

/** What is wrong although everything can be used: stored bytes or keys are missing. */
const StorageProblem = () => {
  const { data, refresh } = useResource("/health", (event) => event.aggregateKind === "log");
  useEffect(() => {
    const timer = setInterval(() => document.hidden || refresh(), STORAGE_POLL_MS); // no event says that bytes are lost
    return () => clearInterval(timer);
  }, []);
  const problem = data?.services.find((one) => one.service === "storage")?.detail;
  return problem ? html`<${Problem} text=${problem} advice=${STORAGE_ADVICE} />` : null;
};

/** Shown when the gateway requires an API key and this browser has no session yet. */
const ApiKeyDialog = () => {
  const submit = (event) => {
    event.preventDefault();
    runWithToast(() => openSession(new FormData(event.target).get("key").trim()));
  };
  return html`
    <${Dialog} title="Enter the API key" onClose=${() => (keyRequired.value = false)}>
      <form class="form" onSubmit=${submit}>
        <${Field} id="key" label="API key" help="This server requires an API key. Ask its operator for one.">
          <input id="key" name="key" type="password" required autofocus autocomplete="current-password" />
        <//>
        <div class="row end"><button class="primary">Log in</button></div>
      </form>
    <//>
  `;
};

const App = () => {
  const [requested = "datasets", id, ...rest] = route.value;
  const [screen, title, List, Detail] = SCREENS.find(([name]) => name === requested) ?? SCREENS[0];
  useEffect(() => void (document.title = `${title} · Loratory`), [title]);
  return html`
    <${Header} screen=${screen} />
    <${OutageNotice} />
    <${StorageProblem} />
    <main key=${`${screen}/${id ?? ""}`}>${id ? html`<${Detail} id=${id} rest=${rest} />` : html`<${List} />`}</main>
    ${keyRequired.value && html`<${ApiKeyDialog} />`}
    <${Toasts} />
  `;
};

render(html`<${App} />`, document.getElementById("app"));
start();
