// @ts-check
/**
 * The address of the client for pages that use this server's copy: `import { FastChat, newId } from "/fastchat.js";`. Its code and its types
 * are in the folder client/.
 *
 * @module
 */

export * from "./client/fastchat.js";
