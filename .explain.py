import asyncio, sys, time, random
from datetime import UTC, datetime
from bench.stage import *
from domain.serving.calls import *
from domain.serving import calls as C
from domain.money.catalogue import Book
from domain.access import secrets
from models.ids import uuid7
from models.enums import UsageOutcome
N=int(sys.argv[1]) if len(sys.argv)>1 else 500
ROUNDS=int(sys.argv[2]) if len(sys.argv)>2 else 6
def opening(t, price):
    return Opening(id=uuid7(), fingerprint=secrets.fingerprint(t.secret), road="generic", endpoint="/v1/chat/completions", api_name="chat", dialect="openai", requested_model="bench", model="bench", echo=False, upstream="mock", price=price, streamed=False, input_tokens=20, requested_max_output=64, max_output_tokens=64, instalment_tokens=64, created_at=datetime.now(UTC))
def ending(a,o):
    now=datetime.now(UTC)
    return Ending(workspace_id=a.workspace_id, call_id=o.id, model="bench", provider="mock", price=o.price, consumption=Consumption(model="bench", quantities={"uncached_input":11,"output":7}, reported=True), outcome=UsageOutcome.SUCCEEDED, http_status=200, error_code=None, latency_ms=5, attempts=(AttemptMade(id=uuid7(), number=1, upstream="mock", model="bench", outcome=UsageOutcome.SUCCEEDED, http_status=200, error_code=None, started_at=now, first_byte_at=now, finished_at=now),))
async def main():
    ex = "explain" in sys.argv
    st = {"shared_preload_libraries":"auto_explain","auto_explain.log_min_duration":"30","auto_explain.log_analyze":"on","auto_explain.log_nested_statements":"on","auto_explain.log_timing":"on"} if ex else {}
    with Stage(st) as s:
        async with s.books(pool=4):
            await offer(["bench"])
            book=Book(); await book.refresh(); price=book.price("bench",datetime.now(UTC))
            ts=[await tenant(f"t{i}", bounds=EIGHT_BOUNDS if "bounds" in sys.argv else ()) for i in range(20 if "many" in sys.argv else 1)]
            calls=Calls(book,batch=N,hold_seconds=600)
            if len(sys.argv)>3 and sys.argv[3].endswith(".sql"):
                s.postgres.run_sql(open(sys.argv[3]).read(), database="tallygate", role="tallygate_owner")
            total=0
            for r in range(ROUNDS):
                os_=[opening(ts[i%len(ts)],price) for i in range(500)]
                t=time.perf_counter(); ads=await asyncio.gather(*(calls.admit(o) for o in os_)); ta=time.perf_counter()-t
                es=[ending(a,o) for a,o in zip(ads,os_)]
                t=time.perf_counter(); se=await asyncio.gather(*(calls.settle(e) for e in es)); tsx=time.perf_counter()-t
                total+=500
                print(f"round {r}: admit {ta/500*1e6:.0f} us/call settle {tsx/500*1e6:.0f} us/call", flush=True)
            cost=cost_picousd(price,{Bucket.UNCACHED_INPUT:11,Bucket.OUTPUT:7})
            t=time.perf_counter()
            print("books", await check_books({x.workspace_id: cost*(total//len(ts)) for x in ts}), time.perf_counter()-t)
        if ex:
            open("/tmp/pg.log","w").write(s.postgres.log.read_text())
asyncio.run(main())
