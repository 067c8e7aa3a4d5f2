// Commands: POST /ctl/NAME with JSON. The cookie and Origin, which the guard asks for, come from the browser.

/** The JSON of an answer; throws an Error, with the status and a message that says why, unless the answer is a success. */
async function answerOf(response) {
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw Object.assign(new Error(answer.detail ?? `The instance has answered ${response.status}.`), {status: response.status});
  return answer;
}

/** Send a command. Returns its answer; throws an Error whose message says why it was refused. */
export async function command(name, given = {}) {
  return answerOf(await fetch(`/ctl/${name}`, {method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(given)}));
}

/** Get JSON from a path of the admin side, such as /slow/ID. Throws as command(). */
export async function get(path) {
  return answerOf(await fetch(path, {headers: {accept: "application/json"}}));
}

/** Why the instance refuses to answer a GET of a path; empty if it does not refuse. The answer, maybe a stream, is not read. */
export async function refusal(path) {
  const response = await fetch(path, {headers: {accept: "application/json"}});
  if (!response.ok) return answerOf(response).catch((error) => error.message);
  await response.body?.cancel();
  return "";
}
