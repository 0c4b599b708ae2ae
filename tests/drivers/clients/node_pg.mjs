// Connects with node-postgres. It takes no list of hosts, and knows no `prefer`: sslmode stands for what its users write in `ssl`.
import fs from "node:fs";
import readline from "node:readline";
import pg from "pg";
import manifest from "pg/package.json" with { type: "json" };

const ssl = (mode, rootcert) => {
  if (mode === "disable") return false;
  if (mode === "require") return { rejectUnauthorized: false };
  return { ca: fs.readFileSync(rootcert) };
};

console.log(`node-postgres ${manifest.version}`);
for await (const line of readline.createInterface({ input: process.stdin })) {
  const [hosts, mode, negotiation, rootcert] = line.split("\t");
  const [host, port] = hosts.split(":");
  const settings = { host, port: Number(port), user: "driver", database: "postgres", ssl: ssl(mode, rootcert) };
  if (negotiation) settings.sslnegotiation = negotiation;
  const client = new pg.Client(settings);
  client.on("error", () => {});
  let answer;
  try {
    await client.connect();
    const { rows } = await client.query("show port");
    answer = [`port ${rows[0].port}`, "", ""];
    await client.end();
  } catch (error) {
    answer = [error.constructor.name, error.code ?? "", error.message];
  }
  console.log(answer.map((field) => String(field).replace(/\s+/g, " ").trim()).join("\t"));
}
