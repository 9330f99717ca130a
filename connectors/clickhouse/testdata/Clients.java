import com.clickhouse.client.api.Client;
import com.clickhouse.client.api.query.Records;
import com.clickhouse.data.ClickHouseFormat;
import java.io.ByteArrayInputStream;
import java.nio.charset.StandardCharsets;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.Statement;
import java.util.concurrent.TimeUnit;
import java.util.stream.StreamSupport;

/** What the Java client and the JDBC driver do with a server: one line for each. */
public class Clients {
    public static void main(String[] args) throws Exception {
        String url = args[0], database = args[1];
        try (Client client = builder(url, database).build()) {
            client.execute("CREATE TABLE jt (a Int64, s String) ENGINE = MergeTree ORDER BY a").get(60, TimeUnit.SECONDS);
            client.loadServerInfo();
            System.out.println("version " + client.getServerVersion().matches("\\d+\\.\\d+.*"));
        }
        use("default", builder(url, database));
        use("plain", builder(url, database).compressServerResponse(false));
        use("LZ4 blocks", builder(url, database).compressClientRequest(true));
        use("LZ4 frames", builder(url, database).useHttpCompression(true).compressClientRequest(true));
        String jdbc = url.replace("http://", "jdbc:clickhouse:http://") + "/" + database;
        for (String options : new String[] {"", "?compress=false", "?client.use_http_compression=true"}) {
            try (Connection connection = DriverManager.getConnection(jdbc + options, "default", "")) {
                useJDBC(options, connection);
            }
        }
        try (Connection connection = DriverManager.getConnection(jdbc + "?clickhouse_setting_session_id=j1", "default", "")) {
            Statement statement = connection.createStatement();
            statement.execute("CREATE TEMPORARY TABLE basket (a Int64)");
            statement.executeUpdate("INSERT INTO basket VALUES (1), (2)");
            System.out.println("JDBC session " + number(statement.executeQuery("SELECT sum(a) FROM basket")));
        }
    }

    static Client.Builder builder(String url, String database) {
        return new Client.Builder().addEndpoint(url).setUsername("default").setPassword("").setDefaultDatabase(database);
    }

    static void use(String name, Client.Builder builder) throws Exception {
        try (Client client = builder.build()) {
            Records records = client.queryRecords("SELECT number FROM numbers(7)").get(60, TimeUnit.SECONDS);
            long seen = StreamSupport.stream(records.spliterator(), false).count();
            String data = "1\t" + "x".repeat(1000) + "\n";
            long written = client.insert("jt", new ByteArrayInputStream(data.repeat(100).getBytes(StandardCharsets.UTF_8)),
                    ClickHouseFormat.TSV).get(60, TimeUnit.SECONDS).getWrittenRows();
            String problem = "";
            try {
                client.queryAll("SELECT nosuch");
            } catch (Exception e) {
                problem = String.valueOf(e.getCause()).replaceAll(".*(Code: \\d+).*", "$1");
            }
            System.out.println(name + " " + client.queryAll("SELECT number AS n, toString(n) AS s FROM numbers(5)").size()
                    + " " + client.queryAll("SELECT number AS n FROM numbers(0)").size()
                    + " " + client.queryAll("SELECT number AS n, toString(n) AS s FROM numbers(200000)").size()
                    + " records " + seen + " of " + records.getResultRows() + " written " + written + " error " + problem);
        }
    }

    static void useJDBC(String options, Connection connection) throws Exception {
        Statement statement = connection.createStatement();
        PreparedStatement batch = connection.prepareStatement("INSERT INTO jt (a, s) VALUES (?, ?)");
        for (int i = 0; i < 10; i++) {
            batch.setLong(1, i);
            batch.setString(2, "jdbc");
            batch.addBatch();
        }
        int sent = batch.executeBatch().length;
        ResultSet rows = statement.executeQuery("SELECT number FROM numbers(100000)");
        int seen = 0;
        while (rows.next()) seen++;
        System.out.println("JDBC" + options + " "
                + connection.getMetaData().getDatabaseProductVersion().matches("\\d+\\.\\d+.*") + " rows " + seen + " sent " + sent);
    }

    static long number(ResultSet rows) throws Exception {
        rows.next();
        return rows.getLong(1);
    }
}
