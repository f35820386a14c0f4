// The lines of a log that the page keeps, in blocks: a new line changes the last block only, and the browser
// lays out only the blocks that are seen.

export const BLOCK_LINES = 200;
export const MOST_LINES = 10_000;
/** Longer lines are cut: one of several megabytes would hold the page up. */
export const LONGEST_LINE = 4000;

export interface Block {
  /** Stays the same while lines are added. */
  id: number;
  lines: readonly string[];
}

export interface LogLines {
  blocks: readonly Block[];
  dropped: number;
}

export const NO_LINES: LogLines = { blocks: [], dropped: 0 };

export function append(log: LogLines, added: readonly string[]): LogLines {
  if (added.length === 0) return log;
  const blocks = [...log.blocks];
  const last = blocks.at(-1);
  let open = last && last.lines.length < BLOCK_LINES ? [...last.lines] : [];
  let id = last ? (open.length ? last.id : last.id + 1) : 0;
  if (open.length) blocks.pop();
  for (const line of added) {
    open.push(cut(line));
    if (open.length === BLOCK_LINES) {
      blocks.push({ id, lines: open });
      id += 1;
      open = [];
    }
  }
  if (open.length) blocks.push({ id, lines: open });
  const tooMany = Math.max(0, blocks.length - MOST_LINES / BLOCK_LINES);
  const gone = blocks.splice(0, tooMany).reduce((sum, block) => sum + block.lines.length, 0);
  return { blocks, dropped: log.dropped + gone };
}

function cut(line: string): string {
  return line.length <= LONGEST_LINE ? line : `${line.slice(0, LONGEST_LINE)} … (${line.length} characters)`;
}
