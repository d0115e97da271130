"""Browser origins over all workspaces: whether anybody whose tokens are in use has named one."""

from domain.apps.addresses import Addresses
from models import database


async def known(origin: str, addresses: Addresses) -> bool:
    """Tell whether an app that is there has registered an origin, as its own or in its manifest, or a token that works names it.

    It opens nothing: what a page may read, its token alone decides.
    """
    statement = """
        SELECT EXISTS (SELECT FROM app_name n JOIN app a ON a.workspace_id = n.workspace_id AND a.id = n.app_id WHERE n.slug = $2 AND a.deleted_at IS NULL)
            OR EXISTS (SELECT FROM app a WHERE a.deleted_at IS NULL AND a.manifest -> 'allowedOrigins' ? $1)
            OR EXISTS (SELECT FROM client_token t LEFT JOIN api_key k ON k.workspace_id = t.workspace_id AND k.id = t.key_id
                        LEFT JOIN app p ON p.workspace_id = t.workspace_id AND p.id = t.app_id
                        WHERE t.allowed_origins @> ARRAY[$1] AND t.revoked_at IS NULL AND t.expires_at > clock_timestamp() AND p.deleted_at IS NULL
                          AND k.revoked_at IS NULL AND (k.expires_at IS NULL OR k.expires_at > clock_timestamp()))
    """
    found: bool = await database.fetch_value(statement, origin, addresses.slug_at(origin))
    return found
