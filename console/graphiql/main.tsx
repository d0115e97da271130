import 'graphiql/setup-workers/vite';
import 'graphiql/style.css';
import './page.css';

import { GraphiQL } from 'graphiql';
import { type FormEvent, StrictMode, useMemo, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { createFetcher } from './fetcher';
import { keepCredential, keptCredential, withoutHeaders } from './storage';

const FIRST_QUERY = `# Press Ctrl+Enter (or ⌘+Enter) to run, Ctrl+Space for suggestions.
# What anybody may ask is answered at once; for the rest, enter an API key above.
# Other headers, such as X-Workspace-Id, go into the Headers tab below.

query FirstLook {
  service {
    version
  }
  models {
    name
  }
  viewer {
    scopes
  }
}
`;

function Page() {
  const [credential, setCredential] = useState(keptCredential);
  const [typed, setTyped] = useState(credential);
  const [kept, setKept] = useState(credential !== '');
  // A new fetcher makes GraphiQL read the schema again, as the new caller.
  const fetcher = useMemo(() => createFetcher(credential), [credential]);

  function use(nextCredential: string, keep: boolean) {
    setCredential(nextCredential);
    setKept(keep);
    keepCredential(keep ? nextCredential : '');
  }

  function submit(event: FormEvent) {
    event.preventDefault();
    use(typed.trim(), kept);
  }

  return (
    <>
      <header className="bar">
        <h1>Tallygate</h1>
        <form onSubmit={submit} autoComplete="off">
          <label htmlFor="credential">Authorization</label>
          <input
            id="credential"
            type="password"
            value={typed}
            placeholder="Bearer tg_…"
            autoComplete="off"
            autoCapitalize="none"
            spellCheck={false}
            title="An API key or a session token"
            onChange={event => setTyped(event.target.value)}
            onBlur={() => use(typed.trim(), kept)}
          />
          <label className="keep">
            <input type="checkbox" checked={kept} onChange={event => use(typed.trim(), event.target.checked)} />
            Keep until this tab closes
          </label>
        </form>
      </header>
      <main>
        <GraphiQL
          fetcher={fetcher}
          storage={withoutHeaders}
          shouldPersistHeaders={false}
          showPersistHeadersSettings={false}
          defaultQuery={FIRST_QUERY}
          defaultEditorToolsVisibility={false}
        >
          <GraphiQL.Logo>GraphiQL</GraphiQL.Logo>
        </GraphiQL>
      </main>
    </>
  );
}

createRoot(document.getElementById('root')!).render(
  <StrictMode>
    <Page />
  </StrictMode>,
);
