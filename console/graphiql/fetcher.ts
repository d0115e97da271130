import type { GraphiQLProps } from 'graphiql';
import { getOperationAST } from 'graphql';
import { createClient } from 'graphql-sse';

type Fetcher = GraphiQLProps['fetcher'];

const ENDPOINT = '/graphql';

/** The headers of a request: the credential of the page's own box, unless the headers editor names another. */
function headersOf(credential: string, typed: Record<string, unknown> = {}): Record<string, string> {
  const headers = new Headers();
  if (credential) headers.set('authorization', /^bearer\s/i.test(credential) ? credential : `Bearer ${credential}`);
  for (const [name, value] of Object.entries(typed)) headers.set(name, String(value));
  return Object.fromEntries(headers);
}

/** A GraphiQL fetcher: queries and mutations by POST, subscriptions as server-sent events, nothing kept between requests. */
export function createFetcher(credential: string): Fetcher {
  return async ({ query, variables, operationName }, options) => {
    const headers = headersOf(credential, options?.headers);
    const operation = options?.documentAST && getOperationAST(options.documentAST, operationName);
    if (operation?.operation === 'subscription') {
      // A subscription that ends is shown as ended; running it again is for the person to decide.
      const client = createClient({ url: ENDPOINT, headers, retryAttempts: 0, credentials: 'omit' });
      return client.iterate({ query, variables, operationName: operationName ?? undefined });
    }
    const response = await fetch(ENDPOINT, {
      method: 'POST',
      credentials: 'omit',
      headers: { accept: 'application/graphql-response+json, application/json', 'content-type': 'application/json', ...headers },
      body: JSON.stringify({ query, variables, operationName: operationName ?? undefined }),
    });
    const text = await response.text();
    try {
      return JSON.parse(text);
    } catch {
      throw new Error(`The server answered ${response.status} ${response.statusText} and no JSON: ${text.slice(0, 300)}`);
    }
  };
}
