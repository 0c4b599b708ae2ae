// node-postgres with pg-pool. The environment and the account are as in load.py.
import fs from "node:fs";
import pg from "pg";

const { CLIENT_NAME: name, CLIENT_HOSTS: host, CLIENT_PORTS: port, CLIENT_CA: ca } = process.env;
const account = { begun: 0, completed: 0, rows: 0, longest: 0, errors: {} };

class Client extends pg.Client {
  connect(done) {
    account.begun += 1;
    return super.connect(done);
  }
}

const ssl = ca ? { ca: fs.readFileSync(ca) } : false;
const settings = { host, port: Number(port), user: "postgres", password: "rig", database: "postgres", application_name: name, ssl };
const pool = new pg.Pool({ ...settings, Client, max: 3, enableChannelBinding: Boolean(ca) });
pool.on("connect", () => {
  account.completed += 1;
});
// Without a listener, the end of an idle connection ends the process.
pool.on("error", () => {});

let over = false;
process.stdin.on("end", () => {
  over = true;
});
process.stdin.resume();

const pause = () => new Promise((resume) => setTimeout(resume, 30));
const work = async () => {
  while (!over) {
    const began = performance.now();
    try {
      await pool.query(`insert into driven (client) values ('${name}')`);
      account.rows += 1;
      account.longest = Math.max(account.longest, (performance.now() - began) / 1000);
    } catch (error) {
      const kind = [error.constructor.name, error.code].filter(Boolean).join(" ");
      account.errors[kind] = (account.errors[kind] ?? 0) + 1;
    }
    await pause();
  }
};
await Promise.all([work(), work(), work()]);
console.log(JSON.stringify(account));
process.exit(0);
