// A single-page application: signs the user in by authorization code with PKCE (RFC 7636), and calls the API with the
// access token. The token is in memory only, so no other page and no later script finds it; a reload signs in again, which
// the provider answers without asking as long as its own session lasts.

const PROVIDER = location.origin.replace("//app.", "//id.");
const API = location.origin.replace("//app.", "//api.");
const CLIENT = "shop-page";
const REDIRECT = `${location.origin}/callback`;
const element = (id) => document.getElementById(id);

const base64url = (bytes) =>
  btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
const random = () => base64url(crypto.getRandomValues(new Uint8Array(32)));

async function metadata() {
  return (await fetch(`${PROVIDER}/.well-known/openid-configuration`)).json();
}

// Leaves the page. What the way back needs is kept for this tab only.
async function signIn() {
  const [verifier, state] = [random(), random()];
  sessionStorage.setItem("sign-in", JSON.stringify({ verifier, state }));
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier)));
  const query = new URLSearchParams({
    response_type: "code", client_id: CLIENT, redirect_uri: REDIRECT, scope: "orders:read orders:write", state,
    code_challenge: base64url(digest), code_challenge_method: "S256",
  });
  location.assign(`${(await metadata()).authorization_endpoint}?${query}`);
}

// The access token for the code that the provider has sent the browser back with.
async function tokenOf(query) {
  const begun = JSON.parse(sessionStorage.getItem("sign-in") ?? "{}");
  sessionStorage.removeItem("sign-in");
  history.replaceState(null, "", "/");
  if (query.get("state") !== begun.state) throw new Error("this sign-in was not begun here");
  if (!query.get("code")) throw new Error(query.get("error") ?? "the provider has sent no code");
  const form = { grant_type: "authorization_code", code: query.get("code"), redirect_uri: REDIRECT, client_id: CLIENT };
  const body = new URLSearchParams({ ...form, code_verifier: begun.verifier });
  const response = await fetch((await metadata()).token_endpoint, { method: "POST", body });
  if (!response.ok) throw new Error(`the provider refuses: ${(await response.json()).error}`);
  return (await response.json()).access_token;
}

async function call(token, method, path, value) {
  const response = await fetch(`${API}${path}`, {
    method,
    headers: { authorization: `Bearer ${token}`, ...(value && { "content-type": "application/json" }) },
    body: value && JSON.stringify(value),
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(`${response.status}: ${answer.detail}`);
  return answer;
}

async function showOrders(token) {
  const { user, orders } = await call(token, "GET", "/me/orders");
  element("who").textContent = `Signed in as ${user}.`;
  element("orders").replaceChildren(...orders.map((order) => {
    const item = document.createElement("li");
    item.textContent = order.what;
    return item;
  }));
}

async function show(work) {
  element("problem").textContent = "";
  try {
    await work();
  } catch (error) {
    element("problem").textContent = error.message;
  }
}

element("sign-in").onclick = () => show(signIn);
element("sign-out").onclick = () => show(async () => location.assign((await metadata()).end_session_endpoint));

if (location.pathname === "/callback") {
  await show(async () => {
    const token = await tokenOf(new URLSearchParams(location.search));
    element("sign-out").hidden = element("add").hidden = false;
    element("add").onsubmit = (event) => {
      event.preventDefault();
      show(async () => {
        await call(token, "POST", "/me/orders", { what: element("what").value });
        await showOrders(token);
      });
    };
    await showOrders(token);
  });
} else {
  element("who").textContent = "Nobody is signed in.";
  element("sign-in").hidden = false;
}
