const CREDENTIAL = 'tallygate:credential';

/** The credential kept for this browser tab, or nothing. */
export function keptCredential(): string {
  return sessionStorage.getItem(CREDENTIAL) ?? '';
}

/** Keep the credential until this browser tab is closed; an empty one is forgotten. */
export function keepCredential(credential: string): void {
  if (credential) sessionStorage.setItem(CREDENTIAL, credential);
  else sessionStorage.removeItem(CREDENTIAL);
}

/**
 * Where GraphiQL keeps its tabs and history: in the browser, without request headers.
 *
 * GraphiQL 5.4 writes the headers editor into its history even when `shouldPersistHeaders` is false, so they are taken out here.
 */
export const withoutHeaders = {
  get length() {
    return localStorage.length;
  },
  getItem: (key: string) => localStorage.getItem(key),
  setItem(key: string, value: string) {
    if (key !== 'graphiql:headers') localStorage.setItem(key, redacted(value));
  },
  removeItem: (key: string) => localStorage.removeItem(key),
  clear() {
    for (const key of Object.keys(localStorage)) if (key.startsWith('graphiql:')) localStorage.removeItem(key);
  },
};

function redacted(value: string): string {
  try {
    return JSON.stringify(JSON.parse(value), (name, part) => (name === 'headers' ? null : part));
  } catch {
    return value; // a bare word, such as the name of a theme
  }
}
