// The page: a header, and the screen its address names.
import { keyNeeded, signIn } from "./api.js";
import { Activity } from "./activity.js";
import { Dataset } from "./dataset.js";
import { Datasets } from "./datasets.js";
import { Job } from "./job.js";
import { Jobs } from "./jobs.js";
import { html, render, useEffect } from "./lib.js";
import { connection, start } from "./live.js";
import { Loras } from "./loras.js";
import { attempt, Dialog, Field, link, route, Toasts } from "./parts.js";

const SCREENS = [
  ["datasets", "Data sets", Datasets, Dataset],
  ["jobs", "Jobs", Jobs, Job],
  ["loras", "LoRAs", Loras, Loras],
  ["activity", "Activity", Activity, Activity],
];

const PILL = {
  connecting: ["connecting", "Connecting to the workshop"],
  live: ["live", "What you see is up to date"],
  reconnecting: ["reconnecting", "The line is down; it is tried again by itself"],
  stale: ["stale", "The catalog has been silent for a while; what you see may be old"],
};

const Pill = () => {
  const { state, replayed } = connection.value;
  const [word, title] = PILL[state] ?? [`replaying ${replayed}`, "Catching up with what happened meanwhile"];
  return html`<span class=${`pill ${state}`} role="status" title=${title}>${word}</span>`;
};

const Header = ({ at }) => html`
  <header class="top">
    <a class="brand" href="#/datasets"><img src="/web/icon.svg" alt="" width="24" height="24" />Loratory</a>
    <nav aria-label="Screens">
      ${SCREENS.map(
        ([name, title]) => html`<a href=${link(name)} aria-current=${name === at ? "page" : null}>${title}</a>`,
      )}
      <a href="/docs">API docs</a>
    </nav>
    <${Pill} />
  </header>
`;

/** Asked when the gateway has a key and this browser has not shown it yet. */
const SignIn = () => {
  const submit = (event) => {
    event.preventDefault();
    attempt(() => signIn(new FormData(event.target).get("key").trim()));
  };
  return html`
    <${Dialog} title="This workshop asks for its API key" onClose=${() => (keyNeeded.value = false)}>
      <form class="form" onSubmit=${submit}>
        <${Field} of="key" label="API key"><input id="key" name="key" type="password" required autofocus autocomplete="current-password" /><//>
        <div class="row end"><button class="primary">Open</button></div>
      </form>
    <//>
  `;
};

const App = () => {
  const [at = "datasets", id, ...rest] = route.value;
  const [name, title, All, One] = SCREENS.find(([screen]) => screen === at) ?? SCREENS[0];
  useEffect(() => void (document.title = `${title} · Loratory`), [title]);
  return html`
    <${Header} at=${name} />
    <main key=${`${name}/${id ?? ""}`}>${id ? html`<${One} id=${id} rest=${rest} />` : html`<${All} />`}</main>
    ${keyNeeded.value && html`<${SignIn} />`}
    <${Toasts} />
  `;
};

render(html`<${App} />`, document.getElementById("app"));
start();
