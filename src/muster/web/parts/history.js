// What a node did in the last quarter of an hour, as the server keeps it.

import { html, signal, useEffect } from "../core/view.js";
import { request } from "../core/api.js";
import { percent, share } from "../core/format.js";
import { Chart } from "./chart.js";
import { useSeen } from "./near.js";

const LOOK_EVERY_MS = 10_000;

/**
 * @typedef {(number | null)[]} Curve
 * @typedef {{index: number, name: string | null, memory_total_mb: number | null, utilization_percent: Curve, memory_used_mb: Curve,
 *   temperature_c: Curve, power_w: Curve}} GpuHistory
 * @typedef {{at: number[], cpu_percent: Curve, memory_used_mb: Curve, memory_total_mb: number | null, gpus: GpuHistory[]}} History
 */

const history = signal(/** @type {History | null} */ (null));

/** @param {{id: string}} props */
export function LastMinutes({ id }) {
  const { box, seen } = useSeen();
  useEffect(() => {
    history.value = null;
    if (!seen) return undefined;
    let wanted = true;
    const look = () => request(`/api/v1/nodes/${encodeURIComponent(id)}/history`).then(
      (answer) => wanted && (history.value = answer),
      (error) => console.info(`muster: history not read (${error.message})`),
    );
    look();
    const timer = setInterval(() => !document.hidden && look(), LOOK_EVERY_MS);
    return () => {
      wanted = false;
      clearInterval(timer);
    };
  }, [id, seen]);
  const known = history.value;
  if (!known) return html`<section ref=${box} class="panel wide"><h3>The last 15 minutes</h3></section>`;
  if (known.at.length < 2) return null;
  /** @param {Curve | undefined} curve */
  const points = (curve = []) => known.at.map((at, index) => ({ at, value: curve[index] ?? null }));
  const memory = (/** @type {number} */ mb) => share(mb, null);
  return html`<section class="panel wide"><h3>The last 15 minutes</h3><div class="charts">
    <${Chart} title="CPU" points=${points(known.cpu_percent)} text=${percent} max=${100} />
    <${Chart} title="Memory" points=${points(known.memory_used_mb)} text=${memory} max=${known.memory_total_mb ?? undefined} />
    ${known.gpus.map((gpu) => html`
      <${Chart} key=${`use ${gpu.index}`} title="GPU ${gpu.index} use" points=${points(gpu.utilization_percent)} text=${percent} max=${100} />
      <${Chart} key=${`memory ${gpu.index}`} title="GPU ${gpu.index} memory" points=${points(gpu.memory_used_mb)} text=${memory} max=${gpu.memory_total_mb ?? undefined} />
      <${Chart} key=${`temperature ${gpu.index}`} title="GPU ${gpu.index} temperature" points=${points(gpu.temperature_c)} text=${(/** @type {number} */ c) => `${Math.round(c)} °C`} />`)}
  </div></section>`;
}
