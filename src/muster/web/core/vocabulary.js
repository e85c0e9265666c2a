// Made by ui/generate_vocabulary.py from the server's enums; run it again instead of editing.

/** @typedef {typeof HEALTH[number]} Health */
export const HEALTH = /** @type {const} */ (["registering", "healthy", "degraded", "unhealthy", "stale", "dead"]);

/** @typedef {typeof PHASE[number]} Phase */
export const PHASE = /** @type {const} */ (["starting", "configuring", "ready", "stopping", "offline", "error"]);

/** @typedef {typeof WORKER_STATUS[number]} WorkerStatus */
export const WORKER_STATUS = /** @type {const} */ (["starting", "idle", "busy", "draining", "stopped", "error"]);

/** @typedef {typeof SERVICE_STATUS[number]} ServiceStatus */
export const SERVICE_STATUS = /** @type {const} */ (["starting", "running", "unhealthy", "stopping", "stopped", "failed"]);

/** @typedef {typeof JOB_STATUS[number]} JobStatus */
export const JOB_STATUS = /** @type {const} */ (["pending", "assigned", "in_progress", "completed", "failed", "cancelled", "timeout", "unworkable"]);

/** @typedef {typeof ROLE[number]} Role */
export const ROLE = /** @type {const} */ (["admin", "operator", "viewer", "client", "agent"]);

/** @type {ReadonlySet<string>} */
export const JOB_ACTIVE = new Set(["assigned", "in_progress"]);

/** @type {ReadonlySet<string>} */
export const JOB_TERMINAL = new Set(["completed", "failed", "cancelled", "timeout"]);
