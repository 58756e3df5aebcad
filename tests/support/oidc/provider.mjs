// A certified OpenID Connect provider on loopback. Argument: a JSON object with port (0 for a free one), keys (private
// JWKs), clients, audience, groups (by user) and seconds (life of an access token). Prints its issuer once it answers.
import http from "node:http";
import Provider from "oidc-provider";

const said = JSON.parse(process.argv[2]);
const server = http.createServer();
server.listen(said.port, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const groups = (user) => ({ "wlcg.groups": said.groups[user] ?? [] });
  const provider = new Provider(issuer, {
    clients: said.clients,
    jwks: { keys: said.keys },
    cookies: { keys: ["only for tests"] },
    claims: { openid: ["sub", "wlcg.groups"] },
    conformIdTokenClaims: false,
    findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, ...groups(id) }) }),
    extraTokenClaims: (_, token) => (token.accountId ? groups(token.accountId) : undefined),
    issueRefreshToken: (_, client) => client.grantTypeAllowed("refresh_token"),
    rotateRefreshToken: true,
    pkce: { required: () => true },
    ttl: { AccessToken: said.seconds, ClientCredentials: said.seconds, DeviceCode: 60, IdToken: 300,
           RefreshToken: 3600, Grant: 3600, Session: 3600, Interaction: 600, AuthorizationCode: 60 },
    features: {
      clientCredentials: { enabled: true },
      deviceFlow: { enabled: true },
      devInteractions: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => said.audience,
        useGrantedResource: () => true,
        getResourceServerInfo: () => ({
          scope: "", audience: said.audience, accessTokenFormat: "jwt", accessTokenTTL: said.seconds,
          jwt: { sign: { alg: "RS256" } },
        }),
      },
    },
  });
  server.on("request", provider.callback());
  console.log(issuer);
});
