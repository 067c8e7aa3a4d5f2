// Commands: POST /ctl/NAME with JSON. The cookie and Origin, which the guard asks for, come from the browser.

/** Send a command. Returns its answer; throws an Error whose message says why it was refused. */
export async function command(name, given = {}) {
  const response = await fetch(`/ctl/${name}`, {
    method: "POST",
    headers: {"content-type": "application/json"},
    body: JSON.stringify(given),
  });
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.detail ?? `The instance has answered ${response.status}.`);
  return answer;
}

/** Get JSON from a path of the admin side, such as /slow/ID. Throws as command(). */
export async function get(path) {
  const response = await fetch(path, {headers: {accept: "application/json"}});
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.detail ?? `The instance has answered ${response.status}.`);
  return answer;
}
