// The token that the page's reader has typed, where the server asks for one: sent with every request, and forgotten with
// the tab.

import { byId, setText } from "./elements.js";

const KEY = "token";
let token = "";
try {
  token = sessionStorage.getItem(KEY) ?? "";
} catch {
  // A browser that keeps nothing: the token lasts as long as the page.
}

export function hasToken() {
  return token !== "";
}

export async function ask(path, { headers = {}, ...options } = {}) {
  const response = await fetch(path, { ...options, headers: token ? { ...headers, Authorization: `Bearer ${token}` } : headers });
  if (isRefused(response)) byId("access").hidden = false;
  return response;
}

export function isRefused(response) {
  return response.status === 401 || response.status === 403;
}

// Has it called when there is another token.
export function onToken(use) {
  byId("access").addEventListener("submit", (event) => {
    event.preventDefault();
    token = byId("token").value.trim();
    byId("token").value = "";
    byId("access").hidden = true;
    try {
      sessionStorage.setItem(KEY, token);
    } catch {
      // As above.
    }
    use();
  });
}

export function sayWhy(text) {
  setText(byId("access-text"), text);
}
