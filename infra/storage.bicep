// The storage of the Functions host and of the apps' code. There are no keys.

param tags object
param location string
@maxLength(24)
param name string
param containers string[]
param ownerIds string[]
@description('Empty for an endpoint that all of the internet can reach.')
param privateSubnetId string
param networkId string

var isPrivate = !empty(privateSubnetId)
// What the host needs with an identity: blobs for code and locks, queues and tables for its own triggers and diagnostics.
var roles = [
  'b7e6dc6d-f1e8-4753-8033-0f276bb0955b' // Storage Blob Data Owner
  '974c5e8b-45b9-4653-ba55-5f855dd0fb88' // Storage Queue Data Contributor
  '0a9a7e1f-b9d0-4cc4-a60d-0319b160aaa3' // Storage Table Data Contributor
]
var grants = flatten(map(ownerIds, owner => map(roles, role => { owner: owner, role: role })))

resource account 'Microsoft.Storage/storageAccounts@2024-01-01' = {
  name: name
  location: location
  tags: tags
  kind: 'StorageV2'
  sku: { name: 'Standard_LRS' }
  properties: {
    allowBlobPublicAccess: false
    allowSharedKeyAccess: false
    minimumTlsVersion: 'TLS1_2'
    supportsHttpsTrafficOnly: true
    publicNetworkAccess: isPrivate ? 'Disabled' : 'Enabled'
    networkAcls: { defaultAction: isPrivate ? 'Deny' : 'Allow', bypass: 'AzureServices' }
  }

  resource blobs 'blobServices' = {
    name: 'default'

    resource container 'containers' = [
      for name in containers: {
        name: name
      }
    ]
  }
}

resource assignments 'Microsoft.Authorization/roleAssignments@2022-04-01' = [
  for grant in grants: {
    scope: account
    name: guid(account.id, grant.owner, grant.role)
    properties: {
      principalId: grant.owner
      principalType: 'ServicePrincipal'
      roleDefinitionId: subscriptionResourceId('Microsoft.Authorization/roleDefinitions', grant.role)
    }
  }
]

module endpoints 'endpoint.bicep' = [
  for service in ['blob', 'queue', 'table']: if (isPrivate) {
    name: 'storage-endpoint-${service}'
    params: {
      tags: tags
      location: location
      name: '${name}-${service}'
      targetId: account.id
      group: service
      zone: 'privatelink.${service}.${environment().suffixes.storage}'
      subnetId: privateSubnetId
      networkId: networkId
    }
  }
]

output name string = account.name
