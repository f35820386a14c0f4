import { useSignal } from "@preact/signals";
import { useEffect, useMemo } from "preact/hooks";
import { call } from "../api.ts";
import { Loading, Trouble } from "../parts/notice.tsx";
import { Heading } from "../parts/page.tsx";
import { usePolled } from "../polled.ts";
import { go, href } from "../router.ts";
import { SubmitForm } from "../submit/form.tsx";
import { Sender, type Order } from "../submit/sending.ts";
import type { ProcessorFacts, Uploads } from "../types.ts";

interface Known {
  processors: ProcessorFacts[];
  uploads: Uploads;
}

export function SubmitView() {
  const known = usePolled(
    "submit",
    async (stop): Promise<Known> => {
      const [{ processors }, uploads] = await Promise.all([
        call<{ processors: ProcessorFacts[] }>("/processors", { signal: stop }),
        call<Uploads>("/uploads", { signal: stop }),
      ]);
      return { processors, uploads };
    },
    { pauseMs: () => null },
  );
  const found = known.data.value;
  return (
    <>
      <Heading title="Submit a job" />
      <Trouble error={known.error.value} />
      {found ? <Send known={found} /> : !known.error.value && <Loading what="the processors" />}
    </>
  );
}

function Send({ known }: { known: Known }) {
  const sender = useMemo(() => new Sender(), []);
  const isSending = useSignal(false);
  useWarning(sender);
  const send = async (order: Order) => {
    isSending.value = true;
    const jobId = await sender.send(order, known.uploads);
    isSending.value = false;
    if (jobId) go(href(["job", jobId]));
  };
  return <SubmitForm {...known} sender={sender} onSubmit={(order) => void send(order)} isSending={isSending.value} />;
}

/** Leaving the page ends an upload: the browser asks first, another place of the console stops it. */
function useWarning(sender: Sender): void {
  useEffect(() => {
    const warn = (event: BeforeUnloadEvent) => {
      if (sender.state.value) event.preventDefault();
    };
    addEventListener("beforeunload", warn);
    return () => {
      removeEventListener("beforeunload", warn);
      sender.stop();
    };
  }, []);
}
