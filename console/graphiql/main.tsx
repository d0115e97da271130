import 'graphiql/setup-workers/vite';
import 'graphiql/style.css';
import './page.css';

import { useGraphiQL, useGraphiQLActions } from '@graphiql/react';
import { GraphiQL } from 'graphiql';
import { type FormEvent, StrictMode, useEffect, useMemo, useState } from 'react';
import { createRoot } from 'react-dom/client';
import { createFetcher } from './fetcher';
import { keepCredential, keptCredential, withoutHeaders } from './storage';

const FIRST_QUERY = `# Run: Ctrl+Enter. Suggestions: Ctrl+Space.
# viewer is null until you enter an API key above.
# X-Workspace-Id and the like go into Headers below.

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

/** The name in the corner; it also hands the system's change between light and dark on to the editors, which look at it only once. */
function Logo() {
  const theme = useGraphiQL(state => state.theme);
  const { setTheme } = useGraphiQLActions();
  useEffect(() => {
    if (theme !== null) return undefined;
    const system = window.matchMedia('(prefers-color-scheme: dark)');
    const follow = () => setTheme(null);
    system.addEventListener('change', follow);
    return () => system.removeEventListener('change', follow);
  }, [theme, setTheme]);
  return 'GraphiQL';
}

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
          <GraphiQL.Logo>
            <Logo />
          </GraphiQL.Logo>
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
